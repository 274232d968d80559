"""Figures of runs as they are shown, in a few words: noise, start-up, repeats. Pure."""

from autoresearch_mcp.record.state import ExperimentState, SessionState
from autoresearch_mcp.text import shown_difference


def shown_floor(state: SessionState) -> float:
    """The noise floor with the decimals that scores have."""
    best = state.best.score if state.best else None
    return state.noise_floor if best is None else shown_difference(state.noise_floor, best)


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
    return f"its score is the mean of {len(best.scores)} runs{failed}"
