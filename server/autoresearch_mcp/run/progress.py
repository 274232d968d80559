"""Where a run is, as its supervisor last said: one small file, replaced whole every second and when a phase begins."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.run.clock import Clock, Phase


class Progress(BaseModel):
    phase: Phase = "queued"
    elapsed: float = 0.0
    """Seconds in this phase."""
    limit: float | None = None
    """Seconds that the phase may last; None where it has no limit."""
    budget: float | None = None
    """Seconds of training that the task grants."""
    pid: int | None = None
    """Of the process that hosts the run."""
    slot: str = ""
    note: str = ""
    """Why it waits, where that is not just its turn."""

    @classmethod
    def of(cls, clock: Clock, slot: str) -> "Progress":
        """Of a run that this process hosts."""
        return cls(phase=clock.phase, elapsed=clock.elapsed, limit=clock.limit, budget=clock.budget, pid=os.getpid(), slot=slot)

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """What was last said; queued where nothing was, or nothing that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        """Raises OSError."""
        write_atomic(path, self.model_dump_json().encode(), lasting=False)
