"""Runs the task's scoring command on a run's outputs, in a process of its own, and takes the score from it."""

import subprocess
from collections.abc import Awaitable, Callable

import anyio

from autoresearch_mcp.errors import EvaluationError, RefusedError, RunFailedError
from autoresearch_mcp.evaluate.command import Score, parse_score
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.limits import BoundedLog
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.text import tail

POLL = 0.02  # seconds between looks at the process
READY = 30.0  # seconds that a command which starts early has for loading before the run's clock starts without it


class Scoring:
    """A started scoring command. With metric.starts_early it starts with the run, prints a line when it has loaded what it needs,
    and then waits for a line on its input, which `score` sends: so loading takes neither the run's time nor anybody's after it.
    """

    def __init__(self, spec: RunSpec, command: list[str], environment: dict[str, str]):
        self._spec = spec
        self._log = BoundedLog(spec.scoring_log, spec.task.run.log_bytes)
        self._waits = spec.task.metric.starts_early
        self.child = Child(
            command, spec.scoring, environment, self._log, stdin=subprocess.PIPE if self._waits else subprocess.DEVNULL
        )

    async def ready(self) -> None:
        """Returns when a command that starts early has loaded, so that it takes no compute from what comes next."""
        if self._waits:
            with anyio.move_on_after(READY):
                await self.child.first_output()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        if self.child.returncode is None:
            self.child.process.kill()
            self.child.process.wait()
        self.child.close()
        self._log.close()

    async def score(self, stop_asked: Callable[[], Awaitable[bool]]) -> Score:
        """The score of the outputs that now lie in the scoring folder. Raises RunFailedError."""
        limit = self._spec.task.run.evaluate_seconds
        try:
            self._release()
            with anyio.move_on_after(limit) as patience:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.child.pump)
                    while self.child.returncode is None and not await stop_asked():  # noqa: ASYNC110 (nothing signals it)
                        await anyio.sleep(POLL)
                    tasks.cancel_scope.cancel()
            self.child.drain()
            if patience.cancelled_caught:
                raise RunFailedError("timeout", "timeout", f"scoring took longer than {limit:.0f} s")
            if self.child.returncode is None:
                raise RunFailedError("crash", "killed", "the run was stopped on request")
            return parse_score(self.child.tail, self.child.returncode)
        except RefusedError as error:
            raise RunFailedError("refused", error.failure, str(error)) from error
        except EvaluationError as error:
            raise RunFailedError("crash", "error", f"{error}\n{tail(self._spec.scoring_log)}") from error
        finally:
            self.end()

    def _release(self) -> None:
        """Tells a command that started early that the outputs are there. One that has died already says so by its status."""
        pipe = self.child.process.stdin
        if pipe is not None:
            try:
                pipe.write(b"\n")
                pipe.close()
            except BrokenPipeError:
                return
