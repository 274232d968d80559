"""The learning curve that a run prints, read while it is printed and dated by our clock. It is untrusted: it may end the run
(record/curves.py), stands in its row, and counts for nothing else.

What is read is bounded, whatever is printed: the last TAIL bytes, once for each of the MOMENTS of the budget.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.record.curves import MOMENTS, Earlier, hopeless
from autoresearch_mcp.run import failures
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.task import Run

TAIL, LINE = 1 << 13, 400  # bytes of the output, and characters of a line, that are searched for a point


class Curve:
    """Of one run of a task whose `run.progress` finds y in a line; without that there is none."""

    def __init__(self, limits: Run, earlier: Sequence[Earlier]):
        self._pattern = re.compile(limits.progress) if limits.progress else None
        self._budget, self._earlier = limits.budget_seconds, earlier
        self._points: list[float | None] = []
        self._saved = 0.0
        self._closed = False

    @property
    def row(self) -> dict[str, Any]:
        """What a run's row says of it."""
        return {"curve": self._points, "saved": round(self._saved, 1)}

    def look(self, printed: bytes, clock: Clock, others: Watch) -> RunFailedError | None:
        """Takes another point if another moment has come, and says why the run is ended if it is hopeless."""
        if clock.phase != "training":
            self.close(printed)
            return None
        moment = min(int(clock.elapsed / self._budget * MOMENTS), MOMENTS - 1)
        if self._pattern is None or moment <= len(self._points):
            return None
        point = self._last(printed[: printed.rfind(b"\n") + 1])
        self._points += [point] * (moment - len(self._points))
        return self._hopeless(clock, others) if self._earlier else None

    def close(self, printed: bytes) -> None:
        """When training is over, if it ever began: the last point is what was printed by then."""
        if self._pattern is not None and self._points and not self._closed:
            self._closed = True
            self._points.append(self._last(printed))

    def _hopeless(self, clock: Clock, others: Watch) -> RunFailedError | None:
        """None also for a run that is disturbed, which is made again whatever it has printed."""
        conditions = others.conditions
        found = hopeless(self._points, [one for one in self._earlier if one.hardware == conditions["hardware"]])
        if found is None or conditions["disturbed"]:
            return None
        self._saved = max(0.0, clock.budget - clock.elapsed)
        return failures.pruned(found, clock.elapsed, self._saved)

    def _last(self, printed: bytes) -> float | None:
        """The latest point in an output; None where there is none, or it is no finite number."""
        assert self._pattern is not None
        for line in reversed(printed[-TAIL:].decode("utf-8", errors="replace").splitlines()):
            if found := self._pattern.search(line[:LINE]):
                try:
                    value = float(found["y"])
                except (TypeError, ValueError):
                    continue
                return value if math.isfinite(value) else None
        return None
