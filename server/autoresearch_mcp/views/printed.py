"""The learning curve that a run prints, read from its log as it grows: what an untrusted program wrote, so bounded in every way."""

from contextlib import suppress
from math import isfinite
from pathlib import Path

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.patterns import LINE, matches
from autoresearch_mcp.record.curves import MOMENTS
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.views.references import log_path

BYTES, SECONDS = 2 << 20, 1.0  # of a log that one look reads, the latest, and how long it may search them
MOST = 2000  # points that are held; of more every second goes

Point = tuple[float, float]
"""Where the run was, in what it counts by, and what it stood at."""


class Printed:
    """The curve in one log."""

    def __init__(self, pattern: str, path: Path):
        self._pattern, self._path = pattern, path
        self._read = 0
        self._rest = b""
        self.points: list[Point] = []

    def look(self) -> list[Point]:
        """All points so far, with those that have come since the last look."""
        try:
            with open(self._path, "rb") as log:
                size = log.seek(0, 2)
                if size < self._read:  # it was begun anew
                    self._read, self._rest, self.points = 0, b"", []
                if size - self._read > BYTES:
                    self._read, self._rest = size - BYTES, b""
                log.seek(self._read)
                new = log.read(BYTES)
        except OSError:
            return self.points
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._rest = self._rest[-LINE:]
        texts = (line[:LINE].decode("utf-8", errors="replace") for line in lines)
        for found in matches(self._pattern, texts, SECONDS):
            with suppress(TypeError, ValueError):
                x, y = float(found["x"]), float(found["y"])
                if isfinite(x) and isfinite(y):
                    self.points.append((x, y))
        while len(self.points) > MOST:
            self.points = self.points[::2]
        return self.points


def printed(session: Session, experiment: ExperimentState) -> Printed | None:
    """Of an experiment's latest run; None where the task has no pattern for it, or the run no log."""
    pattern, path = session.task.run.progress, log_path(session, experiment)
    return Printed(pattern, path) if pattern is not None and path is not None else None


def recorded(experiment: ExperimentState) -> list[Point]:
    """The same from the record, coarser: by the share of the budget that was over."""
    curve = experiment.last.curve if experiment.last else []
    return [(place / MOMENTS, y) for place, y in enumerate(curve, 1) if y is not None]
