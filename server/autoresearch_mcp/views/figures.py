"""Figures of runs as they are shown, in a few words: gains and their intervals, noise, start-up, repeats. Pure."""

from collections.abc import Sequence
from math import isfinite

from autoresearch_mcp.loop.bars import failed_checks, figure
from autoresearch_mcp.loop.verdicts import plus_minus
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.sections import Secondary
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score, shown_difference, spaced


def shown_gain(gain: Estimate | None, score: float) -> list[float]:
    """A gain and the ends of its 95 % interval with the decimals that scores have; the gain alone where the noise is not known."""
    return shown(gain.figures if gain else [], score)


def shown(figures: list[float], score: float) -> list[float]:
    """Differences of scores like `score` with the decimals that those have."""
    return [shown_difference(figure, score) for figure in figures]


def those_there(*figures: float | None) -> list[float]:
    """Of figures those that there are: a gain and, where it has one, its interval."""
    return [figure for figure in figures if figure is not None]


def best_in_words(state: SessionState) -> str:
    """What the best scores as far as is known, with half the width of its 95 % interval: 1.6094 ± 0.0033."""
    score, known = state.best_score, state.standing.score
    if score is None:
        return ""
    return format_score(score) + (plus_minus(known, score) if known else "")


def gain_in_words(gain: list[float]) -> str:
    """+0.0031 ± 0.0023, positive is better."""
    if not gain:
        return ""
    interval = f" ± {format_score((gain[2] - gain[1]) / 2)}" if len(gain) == 3 else ""
    return f"{'+' if gain[0] >= 0 else ''}{format_score(gain[0])}{interval}"


def noise_in_words(state: SessionState) -> str:
    """The deviation of one run's score on the hardware of the latest run."""
    noise, score = state.standing.noise, state.best_score
    if noise.deviation is None or score is None:
        return "not measured"
    where = f" on {state.hardware}" if state.hardware else ""
    if (machines := len(state.standing.machines)) > 1:
        where += f", {machines} machines and what differs between them"
    degrees = f"{noise.degrees:.0f} degree{'s' if round(noise.degrees) != 1 else ''} of freedom"
    return f"{format_score(shown_difference(noise.deviation, score))} a run ({degrees}){where}"


def reach(state: SessionState, experiment: ExperimentState) -> float:
    """Half of the 95 % interval of its mean, by the noise at its level; 0 where that is not known."""
    noise = state.noise_near(experiment)
    if not noise.deviation or len(experiment.scores) < 2:
        return 0.0
    found = Estimate(0.0, noise.deviation / len(experiment.scores) ** 0.5, noise.degrees).interval()[1]
    return found if isfinite(found) else 0.0


def checks_in_words(experiment: ExperimentState) -> dict[str, str]:
    """By name of each check that was made: passed, or how it failed, in words of ours."""
    failed = {name: excerpt.splitlines()[0] for name, excerpt in failed_checks(experiment).items()}
    made = {name for run in experiment.runs if run.ended for name in run.ended.checks}
    return {name: failed.get(name, "passed") for name in sorted(made)}


def checks_excerpt(experiment: ExperimentState) -> str:
    """What failed checks printed: anybody's words."""
    printed = {name: excerpt.partition("\n")[2].strip() for name, excerpt in failed_checks(experiment).items()}
    return "\n".join(f"{name}:\n{text}" for name, text in printed.items() if text)


def limit_in_words(metric: Secondary) -> str:
    """What a secondary metric must hold: at most 30 kB."""
    unit, told = spaced(metric.unit), list[str]()
    if metric.at_least is not None:
        told.append(f"at least {metric.at_least:g}{unit}")
    if metric.at_most is not None:
        told.append(f"at most {metric.at_most:g}{unit}")
    if metric.worse_percent is not None:
        told.append(f"{metric.direction}, at most {metric.worse_percent:g} % worse than the baseline")
    return ", ".join(told) or "no limit"


def bars_in_words(task: Task) -> list[str]:
    """What must hold before a change is kept, beside the score."""
    return [f"check {check.name}" for check in task.checks] + [f"{m.name}: {limit_in_words(m)}" for m in task.secondary]


def limits_in_words(task: Task, experiment: ExperimentState) -> dict[str, str]:
    """By name of each secondary metric: its mean over the runs, with its unit and its limit."""
    found = {metric: figure(experiment, metric.name) for metric in task.secondary}
    return {
        metric.name: f"{format_score(value)}{spaced(metric.unit)} ({limit_in_words(metric)})"
        for metric, value in found.items()
        if value is not None
    }


def of_night(state: SessionState, uses: Sequence[Use]) -> list[str]:
    """What a human may want to know beside the loop: what was saved, and how busy the machine is."""
    saved = saved_in_words(state)
    slots = "; ".join(_use_in_words(use) for use in uses)
    return [*([f"Hopeless runs: {saved}"] if saved else []), f"Slots of this machine: {slots}"]


def _use_in_words(use: Use) -> str:
    names = {"gpu": "GPUs", "core": "cores"}
    waiting = f", {use.waiting} run{'s wait' if use.waiting > 1 else ' waits'} for it" if use.waiting else ""
    return f"{use.used} of {use.there} {names.get(use.kind, use.kind)} in use{waiting}"


def saved_in_words(state: SessionState) -> str:
    """What ending hopeless runs early has saved; empty where none was."""
    pruned = state.counts.get("pruned", 0)
    return f"{pruned} ended early, which saved {state.saved / 60:.1f} min of training" if pruned else ""


def startup(experiment: ExperimentState | None) -> float | None:
    """Seconds of start-up of its latest run that ended."""
    return experiment.last.seconds.get("startup") if experiment and experiment.last else None


def startups(state: SessionState) -> str:
    """The start-up of the latest run beside the baseline's; empty where either has none."""
    latest = startup(state.experiments[-1]) if state.experiments else None
    first = startup(state.baseline)
    return f"{latest:.1f} s in the latest run, {first:.1f} s in the baseline's" if latest is not None and first is not None else ""


def runs_of_best(state: SessionState) -> str:
    """Of a best that was run again: how often, and with what luck."""
    best = state.best
    if best is None or len(best.scores) + best.failed_looks < 2:
        return ""
    failed = f"; {best.failed_looks} more gave no score after training began" if best.failed_looks else ""
    return f"{len(best.scores)} runs, mean {format_score(best.score or 0.0)}{failed}"
