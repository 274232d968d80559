"""The learning curve that a run prints, read while it is printed and dated by our clock. It is untrusted: it may end the run
(record/curves.py, and where what was a number is none any more), stands in its row, and counts for nothing else.

What is read is bounded, whatever is printed: the last TAIL bytes, for SECONDS, once for each of the MOMENTS of the budget. A moment
since which nothing new was printed has no point.
"""

import math
from collections.abc import Sequence
from typing import Any

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.patterns import matches
from autoresearch_mcp.record.curves import AGAIN, MOMENTS, Earlier, diverged, hopeless
from autoresearch_mcp.run import failures
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.sections import Run

TAIL, LINE = 1 << 13, 400  # bytes of the output, and characters of a line, that are searched for a point
SHORTEST = 0.02  # seconds between looks at it
SECONDS = 0.1  # that searching may take, at each moment


class Curve:
    """Of one run of a task whose `run.progress` finds y in a line; without that there is none."""

    def __init__(self, limits: Run, earlier: Sequence[Earlier]):
        self._pattern, self._budget, self._earlier = limits.progress, limits.budget_seconds, earlier
        self._latest: dict[str, Any] = {}
        self._points: list[float | None] = []
        self._saved = 0.0
        self._lost = 0  # moments in a row at which what was printed was no finite number
        self._closed = False

    @property
    def every(self) -> float:
        """Seconds within which a moment may come."""
        return math.inf if self._pattern is None else max(SHORTEST, self._budget / MOMENTS / 4)

    @property
    def row(self) -> dict[str, Any]:
        """What a run's row says of it."""
        return {"curve": self._points, "saved": round(self._saved, 1)}

    def look(self, printed: bytes, clock: Clock, others: Watch) -> RunFailedError | None:
        """Takes another point if another moment has come, and says why the run is ended if nothing can come of it."""
        if clock.phase != "training":
            self.close(printed)
            return None
        moment = min(int(clock.elapsed / self._budget * MOMENTS), MOMENTS - 1)
        if self._pattern is None or moment <= len(self._points):
            return None
        point = self._last(printed[: printed.rfind(b"\n") + 1])
        self._points += [None] * (moment - len(self._points) - 1) + [point]
        if self._lost == AGAIN and any(point is not None for point in self._points):
            return failures.not_finite(self._latest, clock.elapsed)
        return self._gone(clock, others) if self._earlier else None

    def close(self, printed: bytes) -> None:
        """When training is over, if it ever began: the last point is what was printed by then."""
        if self._pattern is not None and self._points and not self._closed:
            self._closed = True
            self._points.append(self._last(printed))

    def _gone(self, clock: Clock, others: Watch) -> RunFailedError | None:
        """Why the run is ended; None also for a hopeless one that is disturbed, which is made again whatever it has printed."""
        conditions = others.conditions
        alike = [one for one in self._earlier if one.hardware == conditions["hardware"]]
        left = max(0.0, clock.budget - clock.elapsed)
        if found := diverged(self._points, alike):
            self._saved = left
            return failures.diverged(found, self._latest, clock.elapsed)
        if (behind := hopeless(self._points, alike)) and not conditions["disturbed"]:
            self._saved = left
            return failures.pruned(behind, clock.elapsed, left)
        return None

    def _last(self, printed: bytes) -> float | None:
        """The latest point in an output; None where there is none since the last time, or it is no finite number."""
        assert self._pattern is not None
        lines = reversed(printed[-TAIL:].decode("utf-8", errors="replace").splitlines())
        found = next(matches(self._pattern, (line[:LINE] for line in lines), SECONDS), self._latest)
        if found == self._latest:
            return None
        self._latest = found
        try:
            value = float(found["y"])
        except (TypeError, ValueError):
            return None
        self._lost = 0 if math.isfinite(value) else self._lost + 1
        return None if self._lost else value
