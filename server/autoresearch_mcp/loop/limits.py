"""When a session is done, by the limits that its task sets, and what it says then. Pure: values and the time of day in, words out.

A limit stops the next experiment, never a verdict that is owed or a run that is on. What is said holds nothing of the holdout: the
agent reads it.
"""

from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score

HOUR = 3600.0


def reached(state: SessionState, task: Task, now: float) -> str:
    """The limit that a session has reached, in words; empty while there is none. `now`: seconds since the epoch."""
    limits, tried = task.limits, len(state.experiments)
    begun = state.experiments[0].runs[0].started_at if state.experiments and state.experiments[0].runs else now
    if limits.experiments is not None and tried >= limits.experiments:
        return f"{tried} experiments, as many as limits.experiments allows"
    if limits.hours is not None and now - begun >= limits.hours * HOUR:
        return f"{limits.hours:g} hours since the first run, as many as limits.hours allows"
    score, better = state.best_score, len(state.kept) > 1
    if limits.stop_at is not None and score is not None and better and state.sign * (score - limits.stop_at) >= 0:
        return f"{task.metric.name} {format_score(score)} has reached limits.stop_at, {limits.stop_at:g}"
    if limits.cost is not None and limits.cost_per_run:
        spent = cost(state, task)
        if spent + limits.cost_per_run > limits.cost * (1 + 1e-9):
            return f"{runs(state)} runs cost {spent:g}, and another one would be more than limits.cost, {limits.cost:g}"
    return ""


def room(state: SessionState, task: Task, wanted: int) -> int:
    """How many of so many experiments the limits still allow to begin."""
    limits, left = task.limits, wanted
    if limits.experiments is not None:
        left = min(left, limits.experiments - len(state.experiments))
    if limits.cost is not None and limits.cost_per_run:
        left = min(left, int((limits.cost * (1 + 1e-9) - cost(state, task)) / limits.cost_per_run))
    return max(0, left)


def runs(state: SessionState) -> int:
    return sum(len(experiment.runs) for experiment in state.experiments)


def cost(state: SessionState, task: Task) -> float:
    """What all runs of the session have cost, in whatever the task counts; 0 where it does not say."""
    return (task.limits.cost_per_run or 0.0) * runs(state)


def summary(state: SessionState, task: Task) -> str:
    """What the session has brought, in a sentence, without anything of the holdout."""
    tried = f"{len(state.experiments)} experiments, {len(state.kept)} kept"
    if state.best_score is None or state.baseline_score is None or state.best is None:
        return tried
    told = f"{tried}; {task.metric.name} {format_score(state.baseline_score)} -> {format_score(state.best_score)}"
    gain = state.standing.total
    if gain and gain.error:
        low, high = map(format_score, gain.interval())
        told += f", a gain of {format_score(gain.value)} (95 %: {low} to {high})"
    return f"{told}, experiment {state.best.number}"


def in_words(task: Task) -> str:
    """All limits of a task; empty where it has none."""
    limits, told = task.limits, list[str]()
    if limits.experiments is not None:
        told.append(f"{limits.experiments} experiments")
    if limits.hours is not None:
        told.append(f"{limits.hours:g} hours")
    if limits.cost is not None:
        told.append(f"a cost of {limits.cost:g}, {limits.cost_per_run:g} a run")
    if limits.stop_at is not None:
        told.append(f"{task.metric.name} {limits.stop_at:g}")
    return ", ".join(told)
