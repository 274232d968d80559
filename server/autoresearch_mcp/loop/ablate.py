"""What each kept change is worth: the final file is run again without it, one change at a time.

A change is taken back by git's three-way merge from the final file; where what came later overlaps with it, that is said and not
guessed. The files that result are experiments of a session of their own, named after the best they take apart, so that the night's
loop knows nothing of them; a second call goes on where the first was interrupted. Leaving out one at a time says nothing of two
that do the same work: each alone may go, both may not.
"""

from dataclasses import dataclass

from autoresearch_mcp.errors import NotFoundError, PatchError
from autoresearch_mcp.loop import commits
from autoresearch_mcp.loop.evidence import noise, values
from autoresearch_mcp.loop.patches import check_syntax
from autoresearch_mcp.loop.rows import record_examination
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Tell, Wanted, work_off
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate, difference

SEED = 3000  # of the first round; others than the night's
WHOLE = "the final file"


@dataclass(frozen=True)
class Left:
    """One change, and what leaving it out does."""

    change: ExperimentState
    worth: Estimate | None = None
    """What the final file scores more than the file without it, positive is better; None where that is not known."""
    reason: str = ""
    """Why not."""


def leave_out(session: Session, rounds: int, tell: Tell) -> list[Left]:
    """Each kept change with its worth, over `rounds` runs of every file, in turns. Raises NotFoundError where nothing was kept."""
    changes = session.state.kept[1:]
    if not changes:
        raise NotFoundError("Nothing was kept but the baseline, so there is no change to leave out.")
    final = session.text_at(session.state.head_commit)
    without = {change.number: _without(session, final, change) for change in changes}
    apart = _session_apart(session)
    files = {0: final} | {number: text for number, text in without.items() if text is not None}
    numbers = {number: _entered(apart, text, number) for number, text in files.items()}
    queue = [Wanted(numbers[number], "verify", SEED + turn) for turn in range(rounds) for number in files]
    results = work_off(apart, queue, tell)
    by_file = {number: results[place :: len(files)] for place, number in enumerate(files)}
    return [_left(session, change, by_file[0], by_file.get(change.number)) for change in changes]


def _without(session: Session, final: str, change: ExperimentState) -> str | None:
    """The final file without a change; None where it cannot be taken back."""
    before, after = session.blob(change.committed.parent), session.blob(change.committed.commit)
    merged = commits.merge(session.workspace, final.encode(), after, before)
    try:
        if merged is not None:
            check_syntax(session.task.files.editable, merged.decode())
    except PatchError:
        return None
    return merged.decode() if merged is not None else None


def _session_apart(session: Session) -> Session:
    best = session.state.best
    assert best is not None
    tag = f"{session.tag}-without-{best.number}"
    if tag not in session.ledger.state().sessions:
        record_examination(session.workspace, session.ledger, session.state, tag)
    return Session(session.workspace, session.ledger, tag, session.executor)


def _entered(apart: Session, text: str, number: int) -> int:
    """The experiment of the session apart that is the final file without a change."""
    description = f"without experiment {number}" if number else WHOLE
    known = next((e.number for e in apart.state.experiments if e.committed.description == description), None)
    return known if known is not None else apart.runs.enter(text.encode(), description)


def _left(session: Session, change: ExperimentState, whole: list[RunEnded], without: list[RunEnded] | None) -> Left:
    if without is None:
        return Left(change, reason="later changes overlap with it, so it cannot be taken back alone")
    hardware = {ended.hardware for ended in (*whole, *without)}
    if any(ended.score is None for ended in whole):
        return Left(change, reason="the final file gave no score")
    if failed := next((ended for ended in without if ended.score is None), None):
        return Left(change, reason=f"without it there is no score ({failed.failure})")
    if len(hardware) > 1:
        return Left(change, reason="the runs were on different hardware")
    known = session.state.standing_on(hardware.pop()).noise if whole else noise(())
    worth = difference(values(whole), values(without), known)
    return Left(change, Estimate(session.state.sign * worth.value, worth.error, worth.degrees))
