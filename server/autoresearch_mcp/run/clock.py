"""The clock that counts: monotonic, kept by the supervisor. A run passes through phases; each has a limit, and what is
reported from inside the run never enters.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from autoresearch_mcp.sections import Run

Phase = Literal["queued", "compile", "startup", "check", "training", "export", "evaluation", "checks", "done"]

STARTUP_FACTOR, EVALUATE_FACTOR, MARGIN = 3, 4, 10.0  # of the baseline's; seconds
IMPORTS = 30.0  # seconds more of start-up where modules are imported before the run: the baseline may have found them, another not


def limits(run: Run, baseline: Sequence[Mapping[str, float]], learns: bool = True) -> Run:
    """The limits of a run in a session whose baseline's runs took `baseline` seconds by phase: what an honest change needs, so that
    there is little time to learn in where learning is free, before the data is there and after it is gone. Where a run learns from
    no data, scoring has all the time that the task says.
    """

    def bounded(phase: Phase, factor: int, allowance: float) -> float:
        took = max((seconds[phase] for seconds in baseline if phase in seconds), default=allowance)
        return min(allowance, factor * took + MARGIN)

    startup = bounded("startup", STARTUP_FACTOR, run.startup_seconds)
    if baseline:
        compiling = max(seconds.get("compile", 0.0) for seconds in baseline)  # it finds that done as well
        imports = IMPORTS if run.preload else 0.0
        startup = min(run.startup_seconds, startup + STARTUP_FACTOR * compiling + imports)
    check = bounded("check", STARTUP_FACTOR, run.check_seconds)
    evaluate = bounded("evaluation", EVALUATE_FACTOR, run.evaluate_seconds) if learns else run.evaluate_seconds
    return run.model_copy(update={"startup_seconds": startup, "check_seconds": check, "evaluate_seconds": evaluate})


class Clock:
    """Seconds spent in each phase and the moment the current one must end.

    Start-up is free up to an allowance, because no training data is in the run yet; what goes beyond is charged to the budget. A
    check of ours in between has an allowance of its own, and counts as start-up beyond it: how long it takes is up to what the run
    declares, and the run goes on meanwhile. Training starts when data is handed over, or with the process where the task has no
    such data; its limit is what is left of the budget plus the grace for a last step.
    """

    def __init__(self, limits: Run, leaving: Callable[[Phase], None] | None = None):
        """`leaving` is called as each phase closes, and takes its time from it."""
        self.limits, self._leaving = limits, leaving
        self.phase: Phase = "queued"
        self.seconds: dict[str, float] = {}
        self._entered = time.monotonic()

    def enter(self, phase: Phase) -> None:
        """Closes the current phase and opens the next."""
        if self._leaving is not None:
            self._leaving(self.phase)
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._entered
        self.phase, self._entered = phase, now

    @property
    def elapsed(self) -> float:
        """Seconds in the current phase."""
        return time.monotonic() - self._entered

    @property
    def budget(self) -> float:
        """Seconds of training that are left of the task's, after what start-up took beyond its allowance."""
        startup = self._started + (self.elapsed if self.phase == "startup" else 0.0)
        return max(0.0, self.limits.budget_seconds - max(0.0, startup - self.limits.startup_seconds))

    @property
    def _started(self) -> float:
        """Seconds of start-up in phases that are over, with what a check took beyond its allowance."""
        return self.seconds.get("startup", 0.0) + max(0.0, self.seconds.get("check", 0.0) - self.limits.check_seconds)

    @property
    def limit(self) -> float | None:
        """Seconds the current phase may last from when it was entered."""
        limits: dict[Phase, float] = {
            "startup": self.limits.startup_seconds + self.limits.budget_seconds - self._started,
            "training": self.budget + self.limits.grace,
            "export": self.limits.export_seconds,
            "evaluation": self.limits.evaluate_seconds,
        }
        return limits.get(self.phase)

    def recorded(self) -> dict[str, float]:
        """What a row says of the phases: of scoring in whole seconds, for how long sealed tokens take says something of them."""
        return {
            phase: float(math.ceil(seconds)) if phase == "evaluation" else round(seconds, 3)
            for phase, seconds in self.seconds.items()
        }

    @property
    def overdue(self) -> bool:
        return self.limit is not None and self.elapsed > self.limit
