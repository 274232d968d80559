"""What runs that were made again say, as estimates. Pure.

A difference of means is judged with the deviations of its own runs and of earlier runs of the same files on the same hardware:
those tell of the noise alone and never of the level, for the earlier runs of a best are the lucky ones that it was kept for.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from autoresearch_mcp.record.curves import KNOWN, Earlier
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Noise, group
from autoresearch_mcp.record.state import SessionState

CONFIDENCE = 0.95  # of every interval that is shown in the morning
LOOKED_AT, OF_ONE = 200, 8  # experiments, and runs of one, that are searched for learning curves
Quantity = Callable[[RunEnded], float | None]
"""A number of a run's result; None where it has none."""


def score(ended: RunEnded) -> float | None:
    return ended.score


def holdout(ended: RunEnded) -> float | None:
    return ended.holdout


def excess(ended: RunEnded) -> float | None:
    """What a run has on val and not on the holdout: taken run by run, because both share most of a run's luck."""
    return ended.score - ended.holdout if ended.score is not None and ended.holdout is not None else None


def values(results: Iterable[RunEnded], quantity: Quantity = score) -> list[float]:
    return [value for ended in results if (value := quantity(ended)) is not None]


def earlier(experiment: ExperimentState, hardware: str) -> list[RunEnded]:
    """Results of its runs in the loop that are evidence: scored, undisturbed, on that class of hardware."""
    ends = [run.ended for run in experiment.runs if run.counts and run.ended is not None]
    return [ended for ended in ends if ended.score is not None and not ended.disturbed and ended.hardware == hardware]


def known_curves(state: SessionState) -> list[Earlier]:
    """The learning curves that a new file's first run is compared with: of the best, and of the latest other runs. Empty where it
    is the baseline, which is compared with nothing.
    """
    best = state.best
    if best is None:
        return []
    latest = [experiment for experiment in islice(reversed(state.experiments), LOOKED_AT) if experiment is not best]
    curves = [curve for experiment in (best, *latest) for curve in _curves(experiment, experiment is best)]
    return curves[:KNOWN]


def _curves(experiment: ExperimentState, best: bool) -> list[Earlier]:
    ends = [run.ended for run in reversed(experiment.runs) if run.counts and run.ended is not None]
    told = [ended for ended in ends if ended.score is not None and ended.curve and not ended.disturbed]
    return [Earlier(ended.hardware, ended.curve, best) for ended in told[:OF_ONE]]


def noise(groups: Iterable[Sequence[float]]) -> Noise:
    """Pooled over groups of runs, each of one file."""
    found = [group(scores) for scores in groups]
    return Noise(sum(noise.squares for noise in found), sum(noise.degrees for noise in found))


def hardware_of(results: Iterable[RunEnded]) -> list[str]:
    """The classes of hardware that these ran on, in the order of their appearance."""
    return list(dict.fromkeys(ended.hardware for ended in results))
