"""Whether git still has what the ledger says: before anything is concluded from a record, it must be the one that was made.

The chain of the ledger binds the rows to each other; here every commit, ref, file and pinned file that they name is held against
its hash. The price is reading every experiment's file once: 2 s for 1,000 experiments. Not covered: who can write the ledger as a
whole can write another one, whose chain holds. It is tamper-evident to whoever knows its last hash, not tamper-proof.
"""

from dataclasses import dataclass

from autoresearch_mcp.errors import LedgerError, WorkspaceError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import commits
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.workspace import experiment_ref


@dataclass(frozen=True)
class Audit:
    events: int
    experiments: int
    faults: list[str]
    """What does not hold, each in a sentence; empty where all does."""


def audit(session: Session) -> Audit:
    """Holds the session's record against git. Raises WorkspaceError where git cannot be asked at all."""
    experiments = session.state.experiments
    try:
        events = session.ledger.verify()
    except LedgerError as error:
        return Audit(0, len(experiments), [str(error)])
    found = _refs(session) + _lineage(session) + _files(session, experiments)
    return Audit(events, len(experiments), found)


def require_sound(session: Session) -> Audit:
    """The audit, where nothing was found. Raises LedgerError with what was."""
    found = audit(session)
    if found.faults:
        raise LedgerError("The record does not hold, so nothing is concluded from it.\n" + "\n".join(found.faults))
    return found


def _refs(session: Session) -> list[str]:
    """The branch and the experiments' refs. What is missing is no fault: a step makes it again from the row."""
    state = session.state
    refs = commits.refs(session.workspace, "refs/autoresearch/experiments")
    expected = {experiment_ref(experiment.number): experiment.committed.commit for experiment in state.experiments}
    branch = f"refs/heads/{state.started.branch}"
    if (here := session.workspace.ref(branch)) is not None:
        refs[branch] = here
    expected[branch] = state.head_commit
    return [
        f"{name} stands at {refs[name][:12]}, and the ledger says {commit[:12]}: somebody moved it. "
        f"Put it back: git update-ref {name} {commit}"
        for name, commit in expected.items()
        if name in refs and refs[name] != commit
    ]


def _lineage(session: Session) -> list[str]:
    """Each kept experiment must stand on the one kept before it, and differ from the start in the editable file alone."""
    state, faults = session.state, list[str]()
    before = state.started.base_commit
    for experiment in state.kept:
        commit = experiment.committed.commit
        if experiment.committed.parent != before:
            faults.append(f"Experiment {experiment.number} does not stand on what was kept before it.")
        before = commit
    try:
        changed = commits.changed_files(session.workspace, state.started.base_commit, state.head_commit)
    except WorkspaceError as error:
        return [*faults, str(error)]
    others = [name for name in changed if name != state.started.file]
    return faults + ([f"The best's commit also changes {', '.join(others)}, which no experiment may."] if others else [])


def _files(session: Session, experiments: list[ExperimentState]) -> list[str]:
    """The editable file at every commit."""
    faults: list[str] = []
    contents = commits.contents(session.workspace, [e.committed.commit for e in experiments], session.state.started.file)
    for experiment, content in zip(experiments, contents, strict=True):
        where = f"{session.state.started.file} of experiment {experiment.number} (commit {experiment.committed.commit[:12]})"
        if content is None:
            faults.append(f"{where} is not in the repository any more: fetch it from a copy.")
        elif sha256(content) != experiment.committed.file_sha256:
            faults.append(f"{where} is not the file that was recorded.")
    return faults
