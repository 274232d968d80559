"""What happens to a run's outputs: they are taken over out of its reach, scored, as often as the task says, and checked."""

from collections.abc import Callable
from pathlib import Path

import anyio.to_thread

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.files import file_sha256
from autoresearch_mcp.run import checks, outputs
from autoresearch_mcp.run.called import Called
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.scoring import Score, Scoring, median

Stopped = Callable[[], RunFailedError | None]
"""Why nobody waits for the result any more; None while somebody does."""


class Judging:
    """Of one run. `children` are the processes that its supervisor started itself; those that are started here are added."""

    def __init__(self, cell: Cell, children: list[int]):
        self._cell, self._children = cell, children
        self.scoring = cell.spare.take_scoring()
        self._laid_out = self._hashes()
        self._called: Called | None = None

    def take_on(self) -> None:
        """What was started for a run to come serves this one. Raises OSError."""
        self._cell.take_on()
        if self.scoring is not None:
            self.scoring.take_on(self._cell.spec)

    @property
    def own(self) -> set[int]:
        """Processes collected by who started them: the supervisor's children, and what the scoring command has executed."""
        return {*self._children, *(self._called.pids if self._called else ())}

    def _hashes(self) -> dict[Path, str]:
        """Of the files that scoring and checks are made with."""
        spec = self._cell.spec
        names = (spec.task.files.editable, *spec.task.files.read_only)
        paths = [folder / name for folder in (spec.files, spec.scoring) for name in names]
        return {path: file_sha256(path) for path in paths if path.is_file()}

    def _require_unchanged(self) -> None:
        """Where nothing keeps a run from the files that it is scored with, it is at least noticed. Raises RunFailedError."""
        if (found := self._hashes()) != self._laid_out:
            names = sorted({path.name for path, _ in found.items() ^ self._laid_out.items()})
            raise RunFailedError("refused", "refused", f"the run changed what it is scored with: {', '.join(names)}")

    def start(self) -> Scoring:
        """The scoring command: the one that started early, else a new one. Raises RunFailedError."""
        if self.scoring is None:
            self.scoring = self._cell.start_scoring()
            self._children.append(self.scoring.child.pid)
        return self.scoring

    async def take_over(self, name: str) -> None:
        """A file of the run's, into the scoring folder, out of its reach. Raises RunFailedError."""
        spec = self._cell.spec
        target, limit = spec.scoring / name, spec.task.run.output_bytes
        try:
            await anyio.to_thread.run_sync(outputs.take_over, spec.work, name, target, limit)
        except OSError as error:
            reason = f"the run left no usable {error.filename or 'output'}: {error.strerror or error}"
            raise RunFailedError("crash", "error", reason) from error

    async def score(self, stopped: Stopped) -> Score:
        """Takes the outputs over and runs the scoring command on them. Raises RunFailedError."""
        await anyio.to_thread.run_sync(self._require_unchanged)
        for name in self._cell.task.run.outputs:
            await self.take_over(name)
        return median([await self._score_once(stopped) for _ in range(self._cell.task.metric.repeats)])

    async def _score_once(self, stopped: Stopped) -> Score:
        scoring, spec = self.start(), self._cell.spec
        log = BoundedLog(spec.called_log if spec.task.data.sealed else spec.log, spec.task.run.log_bytes, more=True)
        self._called = Called(self._cell, log)
        try:
            return await scoring.score(stopped, self._called.serve)
        finally:
            self._called = self.scoring = None
            log.close()

    async def check(self, stopped: Stopped) -> dict[str, str]:
        """What the task's checks say. Raises RunFailedError."""
        return await checks.make(self._cell, self._children, stopped)

    def end(self) -> None:
        """Ends the scoring command."""
        if self.scoring is not None:
            self.scoring.end()
            self.scoring = None
