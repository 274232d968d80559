"""What keeps a change from being kept although its score earns it: checks that failed, secondary metrics beyond their limits. Pure.

A limit of a secondary metric is held against the mean of the experiment's runs; one relative to the baseline, against the mean of
the baseline's, which does not move, so that nothing drifts by small steps. No test decides here: limits are the human's word.
"""

from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import mean
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.sections import Secondary
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score, spaced


def barred(state: SessionState, task: Task, experiment: ExperimentState) -> str | None:
    """Why a scored experiment cannot be kept, whatever its score; None where it can."""
    for name, excerpt in failed_checks(experiment).items():
        return f"its check `{name}` failed: {excerpt.splitlines()[0]}"  # the first line is ours, the rest is anybody's
    for metric in task.secondary:
        first = figure(state.baseline, metric.name) if state.baseline else None
        if (why := beyond(metric, figure(experiment, metric.name), first)) is not None:
            return why
    return None


def failed_checks(experiment: ExperimentState) -> dict[str, str]:
    """By name: excerpts of the checks that failed in any run of it."""
    made = [run.ended.checks for run in experiment.runs if run.ended]
    return {name: excerpt for checks in made for name, excerpt in checks.items() if excerpt}


def figure(experiment: ExperimentState, name: str) -> float | None:
    """The mean of one of the details over the runs that have a score; None where one lacks it."""
    scored = [run.ended.details for run in experiment.runs if run.ended and run.ended.score is not None]
    values = [details.get(name) for details in scored]
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def beyond(metric: Secondary, value: float | None, first: float | None) -> str | None:
    """Which limit a value does not hold, in words, where the baseline has `first`; None where it holds all of them."""
    unit = spaced(metric.unit)
    if value is None:
        return f"the scoring command gives no {metric.name}, which has a limit: a human must mend the one or the other"
    told = f"{metric.name} {format_score(value)}{unit} is beyond its limit"
    if metric.at_most is not None and value > metric.at_most:
        return f"{told}, at most {metric.at_most:g}{unit}"
    if metric.at_least is not None and value < metric.at_least:
        return f"{told}, at least {metric.at_least:g}{unit}"
    if metric.worse_percent is None:
        return None
    if first is None:
        return f"the baseline has no {metric.name} to hold its limit against: a human must mend the scoring command"
    sign = 1 if metric.direction == "maximize" else -1
    bound = first - sign * abs(first) * metric.worse_percent / 100
    if sign * (value - bound) < 0:
        percent = f"{metric.worse_percent:g} % worse than the baseline's {format_score(first)}"
        return f"{told}, {format_score(bound)}{unit}, no more than {percent}"
    return None
