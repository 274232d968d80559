"""What a score means: the verdict that an experiment has earned, in words. Pure: functions over (state, task).

The rule for `better` is `decide` in record/noise.py, where its error bounds and its price are told. *Equal means equal*: a shorter
file is kept only where its own repeated runs are no worse than the best level that the line ever had, but for the difference that
the task states; the noise has no part in it, or many small steps would drift. A run that saw data and gave no score is a result
too: with one of those an experiment is not kept for its other runs, which are the lucky ones.
"""

from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Literal

from autoresearch_mcp.loop.bars import barred
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import MOST_RUNS, Decision, Estimate, Level, agree, decide, mean, significance
from autoresearch_mcp.record.standing import Standing
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score, shown_difference

OWN_RUNS = 2  # that a simplification needs: one alone may be lucky
EXACT_BY_TWO = 3  # baseline runs up to which two that agree to the last digit are enough: who asks for more has his doubts
CROSSINGS = 2  # runs of the best in a row to have it where a candidate ran


@dataclass(frozen=True)
class Verdict:
    decision: Literal["keep", "discard", "repeat"]
    reason: str
    which: ExperimentState | None = None
    """What a `repeat` runs again."""
    gain: Estimate | None = None
    """Over the best; None where it was not compared."""
    simpler: bool = False
    """Kept for being shorter and no worse."""


def verdict(state: SessionState, task: Task, experiment: ExperimentState) -> Verdict:
    """The verdict that a scored experiment earns: keep what is better by the rule of noise.py, or by its own repeats no worse and
    shorter; repeat what could be either; discard what a check or a limit bars, whatever its score. A baseline is not barred: it is
    what there is, and its verdict says what is wrong with it."""
    earned = _earned(state, task, experiment)
    if (why := barred(state, task, experiment)) is None:
        return earned
    if state.best is None:
        return replace(earned, reason=f"{earned.reason}; but {why}. Tell your human")
    told = why if earned.decision == "repeat" else f"{why}; {earned.reason}"
    return replace(earned, decision="discard", reason=told, which=None, simpler=False)


def _earned(state: SessionState, task: Task, experiment: ExperimentState) -> Verdict:
    """By the score alone."""
    assert experiment.score is not None
    score, runs, metric = format_score(experiment.score), len(experiment.scores), task.metric.name
    of = f"{metric} {score}" if runs == 1 else f"{metric} {score}, the mean of {runs} runs,"
    failed = experiment.failed_looks
    if state.best is None:
        missing = 0 if experiment.broken or state.started.confidence == "single" else task.metric.baseline_runs - runs
        exact = agree(experiment.scores) and task.metric.baseline_runs <= EXACT_BY_TWO
        if missing > 0 and not exact:
            return Verdict("repeat", f"{of} is the baseline's so far; {missing} more to know the noise", which=experiment)
        return Verdict("keep", f"{of} is the first score of this session, the baseline")
    if failed:
        reason = f"{failed} of its {failed + runs} runs gave no score after training began, so {score} holds lucky runs alone"
        return Verdict("discard", reason)
    standing = state.standing_on(experiment.hardware)
    if standing.best is None:
        where = f"{of} is on other hardware than the best ever ran on ({experiment.hardware})"
        return _together(state, experiment, where, elsewhere=True)
    decided = _decided(state, task, standing, experiment, standing.scores[experiment.number], standing.best)
    told = f"{of} is {_comparison(state, task, decided.gain)}"
    if decided.decision == "keep" and state.started.confidence != "single" and len(standing.machines) > 1:
        return _on_shared_machines(state, task, standing, experiment, Verdict("keep", told, gain=decided.gain))
    if decided.decision == "keep":
        return Verdict("keep", told, gain=decided.gain)
    if decided.decision == "repeat":
        best_is_due = decided.which == "best" and not state.best.failed_looks
        if best_is_due and sum(hardware != experiment.hardware for hardware in state.best_in_a_row) >= CROSSINGS:
            return _together(state, experiment, f"{told}; the best does not run on {experiment.hardware} any more", elsewhere=True)
        which = state.best if best_is_due else experiment
        runs_told = f"{decided.more} more run{'s' if decided.more != 1 else ''} may decide"
        return Verdict("repeat", f"{told}; {runs_told}", which, decided.gain)
    saved = _saved(state.best, experiment)
    if saved > 0 and (simpler := _simplification(state, task, standing, experiment, of, saved)):
        return replace(simpler, gain=decided.gain)
    return Verdict("discard", told, gain=decided.gain)


def _on_shared_machines(
    state: SessionState, task: Task, standing: Standing, experiment: ExperimentState, earned: Verdict
) -> Verdict:
    """On a keep that was earned on several machines of a class: it must hold on those alone that both files ran on."""
    shared = standing.shared(experiment.number)
    if shared is None:
        return _together(state, experiment, f"{earned.reason}, on another machine than the best ever ran on", elsewhere=False)
    decided = _decided(state, task, standing, experiment, *shared)
    if decided.decision == "keep":
        return earned
    where = f"{earned.reason}, but not where both files ran on one machine"
    if decided.decision == "discard":
        return replace(earned, decision="discard", reason=where)
    return _together(state, experiment, where, elsewhere=False)


def _together(state: SessionState, experiment: ExperimentState, where: str, elsewhere: bool) -> Verdict:
    """On an experiment that ran where the best did not: on another class of hardware, or on another machine. The best runs again,
    CROSSINGS times in a row at most, for where it runs is not ours to say; then this one, which may come to where the best was.
    """
    best = state.best
    assert best is not None
    broken = best.broken_on(experiment.hardware)
    missed = sum(hardware != experiment.hardware for hardware in state.best_in_a_row) if elsewhere else len(state.best_in_a_row)
    if not broken and missed < CROSSINGS:
        return Verdict("repeat", f"{where}; the best runs again, to compare them there", which=best)
    if not broken and sum(map(len, experiment.by_hardware.values())) < MOST_RUNS:
        return Verdict("repeat", f"{where}; it runs again, where the best may have been", which=experiment)
    why = f"the best gives no score there ({broken} of its runs)" if broken else "they did not come together"
    return Verdict("discard", f"{where}, and they could not be compared: {why}. A human can try: autoresearch-mcp calibrate")


def _decided(
    state: SessionState, task: Task, standing: Standing, experiment: ExperimentState, scores: list[float], best: Level
) -> Decision:
    """On these scores of an experiment against what is known of the best."""
    confidence, stated = state.started.confidence, task.metric.noise_floor
    if confidence == "single":
        gain = Estimate(mean(scores) - best.mean, 0.0, inf)
        return Decision("keep" if gain.value > stated else "discard", gain=gain)
    level = significance(state.tried[experiment.number], state.discoveries, confidence)
    return decide(scores, best, standing.noise, level, stated)


def _simplification(
    state: SessionState, task: Task, standing: Standing, experiment: ExperimentState, of: str, saved: int
) -> Verdict | None:
    """The verdict on a shorter file that is not shown to be better; None where it is plainly worse."""
    scores, stated, peak = standing.scores[experiment.number], task.metric.noise_floor, standing.peak
    assert peak is not None
    missing, unit = peak - mean(scores), standing.noise.deviation
    if unit and len(scores) >= OWN_RUNS and agree(scores):
        return None  # a seed of its own: those runs are one
    if missing <= stated and (len(scores) >= OWN_RUNS or unit == 0):
        equals = f"is no worse than the best estimate of this line, {format_score(state.sign * peak)}"
        return Verdict("keep", f"{of} {equals}, with {saved} lines fewer: a simplification", simpler=True)
    if len(scores) < OWN_RUNS and missing <= stated + (unit or 0.0):
        reason = f"{of} could equal the best, with {saved} lines fewer; one run does not show that it is no worse"
        return Verdict("repeat", reason, which=experiment)
    return None


def _saved(best: ExperimentState, experiment: ExperimentState) -> int:
    """Lines fewer than in the best; blank lines and comments do not count, but in rows of older versions."""
    before, after = best.committed, experiment.committed
    if before.size is None or after.size is None:
        return before.lines - after.lines
    return before.size - after.size


def _comparison(state: SessionState, task: Task, gain: Estimate | None) -> str:
    """How it compares with the best, in words."""
    assert state.best is not None
    score = state.best_score
    best = f"the best {format_score(score or 0.0)} (experiment {state.best.number})"
    if gain is None or score is None:
        return f"not compared with {best} yet: the noise is not known"
    if abs(gain.value) <= task.metric.noise_floor:
        return f"equal to {best}" + (f" within the {task.metric.noise_floor:g} that the task states" if gain.value else "")
    low, high = gain.interval()
    if low <= 0 <= high:
        sign = "+" if gain.value > 0 else "-"
        return f"within luck of {best}: {sign}{_difference(abs(gain.value), score)}{plus_minus(gain, score)}"
    word = "better" if gain.value > 0 else "worse"
    return f"{word} than {best} by {_difference(abs(gain.value), score)}{plus_minus(gain, score)}"


def plus_minus(gain: Estimate, score: float) -> str:
    """Half the width of its 95 % interval, in words; empty where there is no noise."""
    low, high = gain.interval()
    return f" ± {_difference((high - low) / 2, score)}" if gain.error and isfinite(high) else ""


def _difference(difference: float, score: float) -> str:
    return format_score(shown_difference(difference, score))
