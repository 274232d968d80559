"""What goes on beside a run: it is told where the run is, and looked at what the run uses."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run import nvidia
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.run.judging import Judging
from autoresearch_mcp.run.processes import reap_adopted
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.usage import Memory, Usage, allowed_memory_mb, excess, shares, usage

LOOK = 0.25  # seconds between looks at what the run uses
TELL = 1.0  # seconds between reports of where it is, but for a new phase


class Beside:
    """Of one run. `fail` is told why it must end, where it must."""

    def __init__(self, cell: Cell, judging: Judging, clock: Clock, others: Watch, fail: Callable[[RunFailedError | None], None]):
        self._cell, self._judging, self._clock, self._others, self._fail = cell, judging, clock, others, fail
        self._vram: nvidia.Held | None = None
        self._peak_memory_mb = self._peak_vram_mb = 0.0
        allowed = allowed_memory_mb(cell.task.sandbox)
        self._memory, self._by_scoring = Memory(allowed), Memory(allowed)
        self._told: tuple[str, float] = ("", 0.0)
        """The phase that was said last, and when."""

    def start(self) -> None:
        """From when the slot is held."""
        self._vram = nvidia.Held(self._others.gpus) if self._others.gpus else None

    @property
    def row(self) -> dict[str, Any]:
        """What a run's row says of what it has used at most."""
        vram = round(self._peak_vram_mb, 1) if self._vram else None
        return {"peak_memory_mb": round(self._peak_memory_mb, 1), "peak_vram_mb": vram}

    async def report(self) -> None:
        """Says where the run is, for whoever waits; ends it where it uses more than it may."""
        allowed = self._cell.task.sandbox
        while True:
            scoring = self._judging.scoring
            self._cell.follow()
            progress = Progress.of(self._clock, str(self._cell.slot))
            if self._clock.phase == "queued":  # those that are at work shall not notice
                await anyio.to_thread.run_sync(self._tell, progress)
                await anyio.sleep(TELL)
                continue
            used, by_scoring = await anyio.to_thread.run_sync(self._look, scoring.child.pid if scoring else None, progress)
            self._fail(excess(by_scoring, allowed, "scoring"))
            if scoring is self._judging.scoring:  # else the scoring command, started meanwhile, may have counted as the run's
                self._peak_memory_mb = max(self._peak_memory_mb, used.memory_mb)
                self._fail(excess(used, allowed))
            reap_adopted(self._judging.own)
            self._others.look_sometimes(self._clock.phase)
            await anyio.sleep(LOOK)

    def _look(self, scoring: int | None, progress: Progress) -> tuple[Usage, Usage]:
        """What the run uses, and what its scoring does; each has what the task allows for itself."""
        self._tell(progress)
        running, beside = shares(scoring)
        ours = usage(self._cell.spec.work, running, self._memory, self._peak_memory_mb, list(self._cell.fresh))
        if self._vram is not None and self._clock.phase in ("startup", "training", "export"):
            self._peak_vram_mb = max(self._peak_vram_mb, self._vram.by(running) / 2**20)
        return ours, usage(self._cell.spec.scoring, beside, self._by_scoring)

    def _tell(self, progress: Progress) -> None:
        (phase, at), now = self._told, time.monotonic()
        if phase == progress.phase and now - at < TELL:
            return
        self._told = progress.phase, now
        with suppress(OSError):  # a full disk: what is said here is only for those who wait
            progress.write(self._cell.spec.progress)
