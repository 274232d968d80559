"""What repeated runs say of the noise of a score. Pure statistics."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class PooledNoise:
    """Pooled variance of groups of scores, each the repeated runs of one file. Groups of one say nothing.

    A group that grows takes its old place, so that a night of repeats costs no more than its last run.
    """

    degrees: int = 0
    """Degrees of freedom: runs beyond the first of each group."""
    squares: float = 0.0
    """Sum of squared deviations from the groups' means."""
    _groups: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])

    def put(self, group: int, scores: Sequence[float]) -> None:
        """Takes all scores of a group, in place of those it had before."""
        if len(scores) < 2:
            return
        degrees, squares = self._groups.get(group, (0, 0.0))
        fresh = (len(scores) - 1, statistics.variance(scores) * (len(scores) - 1))
        self._groups[group] = fresh
        self.degrees += fresh[0] - degrees
        self.squares += fresh[1] - squares

    @property
    def deviation(self) -> float | None:
        """Standard deviation of one run's score; None before anything was repeated."""
        return (max(self.squares, 0.0) / self.degrees) ** 0.5 if self.degrees else None

    def floor(self, stated: float) -> float:
        """Differences up to this size count as equal: two standard deviations, never below what the task states."""
        return stated if self.deviation is None else max(stated, 2 * self.deviation)
