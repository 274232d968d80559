"""The clock that counts: monotonic, kept by the supervisor. A run passes through phases; each has a limit, and what is
reported from inside the run never enters.
"""

import time
from typing import Literal

from autoresearch_mcp.task import Run

Phase = Literal["queued", "startup", "training", "export", "evaluation", "done"]


class Clock:
    """Seconds spent in each phase and the moment the current one must end.

    Start-up is free up to the task's allowance, because no training data is in the run yet. Training starts when data is
    handed over, or with the process where the task has no such data; its limit is the budget plus the grace for a last step.
    """

    def __init__(self, limits: Run):
        self.limits = limits
        self.phase: Phase = "queued"
        self.seconds: dict[str, float] = {}
        self._entered = time.monotonic()

    def enter(self, phase: Phase) -> None:
        """Closes the current phase and opens the next."""
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._entered
        self.phase, self._entered = phase, now

    @property
    def elapsed(self) -> float:
        """Seconds in the current phase."""
        return time.monotonic() - self._entered

    @property
    def limit(self) -> float | None:
        """Seconds the current phase may last."""
        limits: dict[Phase, float] = {
            "startup": self.limits.startup_seconds,
            "training": self.limits.budget_seconds + self.limits.grace_seconds,
            "export": self.limits.export_seconds,
            "evaluation": self.limits.evaluate_seconds,
        }
        return limits.get(self.phase)

    @property
    def overdue(self) -> bool:
        return self.limit is not None and self.elapsed > self.limit
