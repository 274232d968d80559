"""A clean branch of what a night kept, for a pull request: one commit a change, each with what it was worth.

The session's own branch stays what it is. The new one begins where the session began, and each of its commits differs from the one
before in the editable file alone, by what one kept experiment changed. A change may be dropped; what came after it is then merged
without it, by git's three-way merge, and where that does not apply the branch is not made.
"""

from collections.abc import Collection
from dataclasses import dataclass

from autoresearch_mcp.errors import NotAllowedError, NotFoundError, PatchError, WorkspaceError
from autoresearch_mcp.loop import commits
from autoresearch_mcp.loop.audit import require_sound
from autoresearch_mcp.loop.patches import check_syntax
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.text import format_score, plain, shown_difference

MADE = "refs/autoresearch/made"


@dataclass(frozen=True)
class Final:
    branch: str
    commit: str
    changes: list[ExperimentState]
    """What it holds, in the order it was kept."""
    gone: list[ExperimentState]
    """What was kept and left nothing: later changes have taken it back."""
    unverified: bool
    """Whether its file is none that was scored, because something was dropped."""


def make_branch(session: Session, branch: str | None = None, drop: Collection[int] = (), force: bool = False) -> Final:
    """Makes the branch, `autoresearch/<session>-final` if it has no other name. Raises NotFoundError before anything was kept,
    NotAllowedError where it cannot be made, LedgerError where the record does not hold.
    """
    require_sound(session)
    state, workspace = session.state, session.workspace
    branch = branch or f"{state.started.branch}-final"
    kept = state.kept[1:]
    if unknown := set(drop) - {experiment.number for experiment in kept}:
        known = ", ".join(str(experiment.number) for experiment in kept) or "none"
        raise NotFoundError(f"Experiment {min(unknown)} is no change that was kept. Those are: {known}.")
    wanted = [experiment for experiment in kept if experiment.number not in drop]
    if not wanted:
        what = "Everything that was kept would be dropped" if kept else "Nothing was kept but the baseline"
        raise NotFoundError(f"{what}, so there is nothing for a branch to hold.")
    try:
        workspace.run("check_ref_format", "--branch", branch)
    except WorkspaceError as error:
        raise NotAllowedError(f"{branch!r} is no name for a branch. Choose another, as in: --branch results") from error
    if branch in {other.started.branch for other in session.ledger.state().sessions.values()}:
        raise NotAllowedError(f"The branch {branch} is that of a session. Name another with --branch.")
    here, place = workspace.ref(f"refs/heads/{branch}"), commits.checked_out(workspace, branch)
    mark = f"{MADE}/{branch}"  # where it stood when it was made here: who has committed to it since shall not lose that
    ours = here is not None and workspace.ref(mark) == here
    if here is not None and not force and not ours and place is None:
        raise NotAllowedError(f"The branch {branch} is there already. Pass --force to put this in its place, or name another.")
    commit, text, changes = _line(session, wanted)
    if place is not None and here is not None:
        if commits.changed_files(workspace, here, commit):
            raise NotAllowedError(f"The branch {branch} is checked out in {place}. Name another with --branch.")
        commit = here  # it holds the same, and nothing is moved under somebody's feet
    else:
        workspace.set_ref(f"refs/heads/{branch}", commit)
        workspace.set_ref(mark, commit)
    gone = [experiment for experiment in wanted if experiment not in changes]
    return Final(branch, commit, changes, gone, unverified=text != session.text_at(state.head_commit))


def _line(session: Session, wanted: list[ExperimentState]) -> tuple[str, str, list[ExperimentState]]:
    """One commit for each change that left something: the last commit, its file, and what it holds. All of them where the file
    would be another without those that left nothing.
    """
    whole = _commits(session, wanted)
    lasting = [experiment for experiment in wanted if not _left_nothing(session, whole[1], experiment)]
    if not lasting or len(lasting) == len(wanted):
        return whole
    try:
        shorter = _commits(session, lasting)
    except NotAllowedError:
        return whole
    return shorter if shorter[1] == whole[1] else whole


def _commits(session: Session, wanted: list[ExperimentState]) -> tuple[str, str, list[ExperimentState]]:
    workspace, name, base = session.workspace, session.task.files.editable, session.state.started.base_commit
    commit, text, changes = base, session.text_at(base), list[ExperimentState]()
    for experiment in wanted:
        if (after := _applied(session, text, experiment)) != text:
            commit = workspace.commit_file(commit, name, after.encode(), message(session, experiment))
            text, changes = after, [*changes, experiment]
    return commit, text, changes


def _left_nothing(session: Session, text: str, experiment: ExperimentState) -> bool:
    """Whether taking the change back from the file changes nothing."""
    before, after = session.blob(experiment.committed.parent), session.blob(experiment.committed.commit)
    return commits.merge(session.workspace, text.encode(), after, before) == text.encode()


def _applied(session: Session, text: str, experiment: ExperimentState) -> str:
    """The text with what the experiment changed."""
    before, after = session.blob(experiment.committed.parent), session.blob(experiment.committed.commit)
    if text.encode() == before:
        return after.decode("utf-8", errors="replace")
    merged = commits.merge(session.workspace, text.encode(), before, after)
    try:
        if merged is None:
            raise PatchError("it overlaps with what was dropped")
        check_syntax(session.task.files.editable, merged.decode())
    except PatchError as error:
        which = f"Experiment {experiment.number}"
        raise NotAllowedError(f"{which} does not apply without what was dropped: {error}. Drop {experiment.number} too.") from error
    return merged.decode()


def message(session: Session, experiment: ExperimentState) -> str:
    """Of a commit: what was tried, why it should help, and what it gained."""
    committed, verdict, metric = experiment.committed, experiment.verdict, session.task.metric
    parts = [plain(committed.description)]
    if committed.hypothesis:
        parts.append(plain(committed.hypothesis))
    told = f"{metric.name}: {format_score(experiment.score or 0.0)}, the mean of {len(experiment.scores)} run(s)"
    if verdict and verdict.simpler:
        told += "; kept for being shorter and no worse"
    elif verdict and verdict.gain:
        told += f"; {gain_of(verdict.gain, experiment.score or 0.0)} better than before it"
    parts.append(f"{told}. Experiment {experiment.number} of session {session.tag}.")
    if verdict and verdict.learned:
        parts.append(f"Learned: {plain(verdict.learned)}")
    return "\n\n".join(parts)


def gain_of(figures: list[float], score: float) -> str:
    """0.0031 (95 %: 0.0008 to 0.0054), with the decimals of `score`."""
    shown = [format_score(shown_difference(figure, score)) for figure in figures]
    return f"{shown[0]} (95 %: {shown[1]} to {shown[2]})" if len(set(shown)) > 1 else shown[0]
