"""Several changes at once: a wave of experiments, and the changes of several merged into one file. Steps of a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from autoresearch_mcp.errors import AutoresearchError, NotAllowedError, NotFoundError
from autoresearch_mcp.loop import changes, commits, limits, patches, rules
from autoresearch_mcp.loop.rows import LEARNED
from autoresearch_mcp.loop.session import DESCRIPTION, Session
from autoresearch_mcp.loop.sizes import check_size
from autoresearch_mcp.record.events import SessionStarted
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import format_score, one_line

MOST = 64  # entries of a wave


@dataclass(frozen=True)
class Entry:
    """Of a wave, as it is asked for."""

    patch: Annotated[str, Field(max_length=patches.MAX_BYTES)]
    description: Annotated[str, Field(max_length=DESCRIPTION)]
    hypothesis: Annotated[str | None, Field(max_length=LEARNED)] = None
    replicate: bool = False
    """Also where the change was measured on another best."""


def run_batch(session: Session, entries: Sequence[Entry]) -> list[int | str]:
    """Enters a wave of changes to the best, each on its own, and starts their runs, as slots allow. For each entry the number of
    its experiment, or why it was not entered; with none of them there is no wave. Raises NotAllowedError.
    """
    with session.step("run_batch"):
        rules.require("run_batch", session.state, session.task, session.file(), session.done())
        if not 0 < len(entries) <= MOST:
            raise NotAllowedError(f"run_batch takes 1 to {MOST} experiments, and was given {len(entries)}.")
        session.data.require(session.workspace.root)
        session.worktree.restore(session.runs.pinned)
        room = limits.room(session.state, session.task, len(entries))
        entered: dict[int, tuple[bytes, str, str | None]] = {}
        said: dict[int, str] = {}
        known: set[str] = set()
        for place, entry in enumerate(entries):
            try:
                if len(entered) == room:
                    raise NotAllowedError("The session's limits leave no room for it.")
                content = _changed(session, entry, known)
                entered[place] = content, _described(entry), entry.hypothesis
            except AutoresearchError as error:
                said[place] = str(error)
        numbers: dict[int, int] = dict(zip(entered, session.runs.wave(list(entered.values())), strict=True))
        return [numbers.get(place, said.get(place, "")) for place in range(len(entries))]


def comparable(session: Session) -> dict[str, SessionState]:
    """The workspace's lines of research on the same file and metric, by name, this one among them."""
    own, sessions = session.state.started, session.ledger.state().sessions
    return {
        tag: state
        for tag, state in sessions.items()
        if tag == session.tag or (_measures(state.started) == _measures(own) and state.started.examines is None)
    }


def _measures(started: SessionStarted) -> tuple[str, str, str]:
    return started.file, started.metric, started.direction


def comparable_experiment(session: Session, number: int) -> ExperimentState | None:
    """Of any of them; None where none has it."""
    found = session.ledger.state().experiments.get(number)
    return found if found and found.committed.session in comparable(session) else None


def tried_elsewhere(session: Session, number: int) -> str:
    """Which other session has run the program, or made the change, of an experiment of this one, and what came of it; empty where
    none has.
    """
    committed = session.experiment(number).committed
    for tag, state in comparable(session).items():
        if tag == session.tag:
            continue
        same = state.by_program.get(committed.program_sha256 or "", []) or state.by_change.get(committed.change_sha256 or "", [])
        if same:
            score = "" if same[0].score is None else f", {session.task.metric.name} {format_score(same[0].score)}"
            return f"session {tag} has tried this as experiment {same[0].number} ({same[0].status}{score})"
    return ""


def _changed(session: Session, entry: Entry, known: set[str]) -> bytes:
    """The best's file with the change of a wave's entry; the program joins those that are `known` of the wave. Raises
    AutoresearchError where it cannot be run.
    """
    state, name = session.state, session.task.files.editable
    best, base = session.text_at(state.head_commit), session.text_at(state.started.base_commit)
    _described(entry)
    text = patches.apply_patch(entry.patch, name, best, root=str(session.worktree.root))
    check_size(session.task.files, text)
    rules.refuse_what_was_tried(state, session.task, rules.File(text, best, base), entry.replicate)
    digest = changes.program_digest(name, text)
    if digest in known:
        raise NotAllowedError("An earlier entry of this batch is the same program.")
    known.add(digest)
    return text.encode("utf-8")


def _described(entry: Entry) -> str:
    description = one_line(entry.description, DESCRIPTION)
    if not description:
        raise NotAllowedError("description is empty. Say in a few words what this experiment tries.")
    return description


def combine(session: Session, numbers: Sequence[int]) -> bytes:
    """Merges what experiments of this or another session changed into the editable file, which must be the best's. Returns what it
    holds now. Raises NotAllowedError, NotFoundError.
    """
    with session.step("combine"):
        file, name = session.file(), session.task.files.editable
        rules.require("apply_patch", session.state, session.task, file, session.done())
        if file.edited:
            raise NotAllowedError(f"{name} has an edit already: run it, or discard it, before changes are merged.")
        merged = best = session.blob(session.state.head_commit)
        for number in dict.fromkeys(numbers):
            merged = _with(session, merged, number)
        if merged == best:
            raise NotAllowedError("What these experiments changed is in the best already, so there is nothing to measure.")
        patches.check_syntax(name, merged.decode())
        check_size(session.task.files, merged.decode())
        session.worktree.write(merged)
        return merged


def run_merged(session: Session, numbers: Sequence[int], description: str, hypothesis: str | None = None) -> tuple[int, str]:
    """Merges what these experiments changed and runs it; on another best a change is tried again. Where that is no experiment in
    the end, the file is as it was. Returns what `Session.run_experiment` does. Raises AutoresearchError.
    """
    merged, known = combine(session, numbers), len(session.state.experiments)
    try:
        return session.run_experiment(description, hypothesis, replicate=True)
    except BaseException:
        with session.step("combine"):
            if len(session.state.experiments) == known and session.read().text.encode() == merged:
                session.worktree.write(session.blob(session.state.head_commit))
        raise


def adopt(session: Session, number: int) -> tuple[int, str]:
    """Starts an experiment here: what another session kept, its change merged onto this one's best. Returns its number and a note
    as `Session.run_experiment` does. Raises NotAllowedError, NotFoundError.
    """
    found = comparable_experiment(session, number)
    if found is None:
        raise NotFoundError(_unknown(session, number))
    there = found.committed.session
    if there == session.tag:
        raise NotAllowedError(f"Experiment {number} is of this session: run_experiment with combine=[{number}] merges its change.")
    if found.verdict is None or found.verdict.verdict != "keep":
        raise NotAllowedError(
            f"Session {there} has not kept experiment {number} ({found.status}), so there is nothing to take over. To try that "
            f"change all the same: run_experiment with combine=[{number}]."
        )
    description = f"experiment {number} of session {there}: {found.committed.description}"
    return run_merged(session, [number], description, found.committed.hypothesis)


def _unknown(session: Session, number: int) -> str:
    return f"There is no experiment {number} in this workspace that changed {session.task.files.editable}."


def _with(session: Session, text: bytes, number: int) -> bytes:
    experiment = comparable_experiment(session, number)
    if experiment is None:
        raise NotFoundError(_unknown(session, number))
    before, after = session.blob(experiment.committed.parent), session.blob(experiment.committed.commit)
    merged = commits.merge(session.workspace, text, before, after)
    if merged is None:
        raise NotAllowedError(
            f"What experiment {number} changed overlaps with the best or with the others. Next: leave it out, or read "
            f"diff:{number} and make the change by apply_patch."
        )
    return merged
