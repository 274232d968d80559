"""What each kept change is worth: the final file is run again without it, one change at a time, or without several at once.

A change is taken back by git's three-way merge from the final file; where what came later overlaps with it, that is said and not
guessed. The files that result are experiments of a session of their own, named after the best they take apart, so that the night's
loop knows nothing of them; a second call goes on where the first was interrupted. Leaving out one at a time says nothing of two
that do the same work: each alone may go, both may not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch_mcp.errors import NotFoundError, PatchError, WorkspaceError
from autoresearch_mcp.files import locked
from autoresearch_mcp.loop import commits
from autoresearch_mcp.loop.audit import require_sound
from autoresearch_mcp.loop.evidence import noise, values
from autoresearch_mcp.loop.patches import check_syntax
from autoresearch_mcp.loop.rows import record_examination
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Tell, Wanted, work_off
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate, difference, far, mean, unequal

SEED = 3000  # of the first round; others than the night's
WHOLE = "the final file"


@dataclass(frozen=True)
class Left:
    """What was left out together, and what that does."""

    changes: Sequence[ExperimentState]
    worth: Estimate | None = None
    """What the final file scores more than the file without it, positive is better; None where that is not known."""
    reason: str = ""
    """Why not."""
    disturbed: int = 0
    """Of its runs: how many others took compute from."""

    @property
    def simpler(self) -> bool:
        """Whether it was kept for being shorter."""
        return any(change.verdict is not None and change.verdict.simpler for change in self.changes)


def leave_out(session: Session, rounds: int, tell: Tell, together: Sequence[int] = ()) -> list[Left]:
    """Each kept change with its worth, or those that `together` names as one, over `rounds` runs of every file, in turns. Raises
    NotFoundError where there is no such change, LedgerError where the record does not hold.
    """
    changes = session.state.kept[1:]
    if not changes:
        raise NotFoundError("Nothing was kept but the baseline, so there is no change to leave out.")
    if unknown := set(together) - {change.number for change in changes}:
        known = ", ".join(str(change.number) for change in changes)
        raise NotFoundError(f"Experiment {min(unknown)} is no change that was kept. Those are: {known}.")
    require_sound(session)
    groups = [[change for change in changes if change.number in together]] if together else [[change] for change in changes]
    final = session.text_at(session.state.head_commit)
    texts = [_without(session, final, group) for group in groups]
    with locked(session.workspace.state_dir / "ablate.lock", "enter what is left"):
        apart = _session_apart(session)
        numbers = [_entered(apart, final, [])]
        numbers += [_entered(apart, text, group) for text, group in zip(texts, groups, strict=True) if text is not None]
    queue = [Wanted(number, "verify", SEED + turn) for turn in range(rounds) for number in numbers]
    results = work_off(apart, queue, tell)
    whole, *others = (results[place :: len(numbers)] for place in range(len(numbers)))
    without = iter(others)
    return [
        _left(session, group, whole, None if text is None else next(without)) for text, group in zip(texts, groups, strict=True)
    ]


def _without(session: Session, final: str, group: Sequence[ExperimentState]) -> str | None:
    """The final file without these changes, the latest taken back first; None where one cannot be taken back."""
    text = final.encode()
    for change in reversed(group):
        before, after = session.blob(change.committed.parent), session.blob(change.committed.commit)
        merged = commits.merge(session.workspace, text, after, before)
        if merged is None:
            return None
        text = merged
    try:
        check_syntax(session.task.files.editable, text.decode())
    except PatchError:
        return None
    return text.decode()


def _session_apart(session: Session) -> Session:
    best = session.state.best
    assert best is not None
    tag = f"{session.tag}-without-{best.number}"
    if tag not in session.ledger.state().sessions:
        record_examination(session.workspace, session.ledger, session.state, tag)
    apart = Session(session.workspace, session.ledger, tag, session.executor)
    if apart.state.started.examines != session.tag:
        raise WorkspaceError(
            f"The session {tag} is a line of research of your own, and its name is needed. Run ablate in a clone of the workspace, "
            "made before that session began."
        )
    return apart


def _entered(apart: Session, text: str, group: Sequence[ExperimentState]) -> int:
    """The experiment of the session apart that is the final file without these changes."""
    numbers = " and ".join(str(change.number) for change in group)
    description = f"without experiment {numbers}" if group else WHOLE
    known = next((e.number for e in apart.state.experiments if e.committed.description == description), None)
    return known if known is not None else apart.runs.enter(text.encode(), description)


def _left(session: Session, group: Sequence[ExperimentState], whole: list[RunEnded], without: list[RunEnded] | None) -> Left:
    if without is None:
        return Left(group, reason="later changes overlap with it, so it cannot be taken back alone")
    hardware = {ended.hardware for ended in (*whole, *without)}
    if any(ended.score is None for ended in whole):
        return Left(group, reason="the final file gave no score")
    if failed := next((ended for ended in without if ended.score is None), None):
        return Left(group, reason=f"without it there is no score ({failed.failure})")
    if len(hardware) > 1:
        return Left(group, reason="the runs were on different hardware: call again")
    one, other = values(whole), values(without)
    known = session.state.standing_on(hardware.pop()).noise
    fresh = noise([one, other])
    worth = difference(one, other, known.more(fresh.squares, fresh.degrees))
    if not known.degrees or far(mean(one), mean(other), known):  # what is known of the noise is of the final file's level
        worth = unequal(one, other)
    marked = sum(bool(ended.disturbed) for ended in (*whole, *without))
    return Left(group, Estimate(session.state.sign * worth.value, worth.error, worth.degrees), disturbed=marked)
