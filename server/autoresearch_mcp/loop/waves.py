"""Waves: several experiments at once, each a change of its own to the same best. Pure: functions over (state, task).

Every member is judged as an experiment alone would be: by the same rule, against the same best, and each is a look that the bound
on the night's error counts. What is decided against is recorded at once, so that later runs of others cannot turn it; the last one
waits for whoever concludes the wave. One at most becomes the best, for the others' changes are not on top of it; what they are
worth there is another experiment, their changes merged. Until the wave is concluded nothing else is tried.
"""

from typing import Literal

from autoresearch_mcp.loop.verdicts import Verdict, verdict
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.task import Task

LOST_AGAIN = 2  # how often a member whose machine was lost before it saw data is run again


def due(state: SessionState, task: Task) -> ExperimentState | None:
    """What the server runs now, beside whatever is on: a member that no verdict can be given on yet, or the best for it."""
    for member in state.wave:
        if member.running is None and (which := _lacking(state, task, member)) is not None and which.running is None:
            return which
    return None


def _lacking(state: SessionState, task: Task, member: ExperimentState) -> ExperimentState | None:
    """What must run before this member, which does not run itself, can be judged."""
    if member.undecided:
        return member
    if member.score is not None:
        return verdict(state, task, member).which
    lost = sum(run.ended is not None and run.ended.failure == "lost" for run in member.runs)
    return member if member.failure in ("lost", "pending") and not member.failed_looks and lost <= LOST_AGAIN else None


def is_decided(state: SessionState, task: Task, member: ExperimentState) -> bool:
    return member.running is None and _lacking(state, task, member) is None


def against(state: SessionState, task: Task) -> ExperimentState | None:
    """A member that is decided against, while others await their verdict too."""
    if len(state.wave) > 1:
        for member in state.wave:
            if is_decided(state, task, member) and earned(state, task, member).decision == "discard":
                return member
    return None


def is_over(state: SessionState, task: Task) -> bool:
    """Whether every member can be judged."""
    return all(is_decided(state, task, member) for member in state.wave)


def earned(state: SessionState, task: Task, member: ExperimentState) -> Verdict:
    """What a member comes to; of one without a score, that it gave none."""
    if member.score is None:
        return Verdict("discard", f"no score: {member.failure}")
    return verdict(state, task, member)


def ranked(state: SessionState, task: Task) -> list[tuple[ExperimentState, Verdict | None]]:
    """All members, those that earned a keep first, by score; None for one that cannot be judged yet."""

    def given(member: ExperimentState) -> Verdict | None:
        if member.verdict is not None:
            return Verdict(member.verdict.verdict, member.verdict.reason)
        return earned(state, task, member) if is_decided(state, task, member) else None

    members = [(member, given(member)) for member in state.whole_wave]

    def rank(item: tuple[ExperimentState, Verdict | None]) -> tuple[bool, bool, float]:
        member, verdict = item
        return verdict is not None and verdict.decision == "keep", member.score is not None, state.sign * (member.score or 0.0)

    return sorted(members, key=rank, reverse=True)


def winners(state: SessionState, task: Task) -> list[ExperimentState]:
    """Those that earned a keep, the best first; empty until the wave can be judged."""
    if not is_over(state, task):
        return []
    return [member for member, given in ranked(state, task) if given is not None and given.decision == "keep"]


def fate(state: SessionState, task: Task, member: ExperimentState, kept: ExperimentState | None) -> Verdict:
    """With which verdict a member goes when the wave is judged and another one is kept, or none."""
    given = earned(state, task, member)
    if kept is None or given.decision != "keep":
        return given
    beside = f"experiment {kept.number} of the same wave was kept, and this change is not on top of it"
    return Verdict("discard", f"{given.reason}; but {beside}", gain=given.gain)


def place(state: SessionState, task: Task) -> tuple[Literal["running", "repeating", "scored"], tuple[str, ...], str, bool]:
    """Where the loop stands in a wave: what rules.Position is made of."""
    get, members = task.get_tool, state.whole_wave
    decided = sum(member.verdict is not None or is_decided(state, task, member) for member in members)
    if decided < len(members) or state.running:
        step = f"{decided} of the wave's {len(members)} experiments are decided: call {get} to wait for the rest"
        ways = ["stop_experiment"] if any(member.running for member in members) else [] if state.running else ["discard"]
        return "running" if state.running else "repeating", (get, *ways), step, False
    if not (best := winners(state, task)):
        return "scored", ("discard",), "call discard: none of the wave is better", True
    step = f"call keep, which keeps experiment {best[0].number} and discards the rest"
    if others := [other.number for other in best[1:]]:
        step += f"; then run_experiment with combine={others} tries what else was better on top of it, where that does not overlap"
    return "scored", ("keep", "discard"), step, False
