"""Scoring: runs the task's scoring command on a run's outputs, in a process of its own, and takes the score from its last line.

That line is a number, or {"score": number, "holdout": number, "details": {name: number}}, or {"refused": reason, "failure": name}.
The command is the task's and trusted, but it may echo what a run wrote; so whatever it prints comes out as a score or as a failure
with a name, within bounds.
"""

import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from autoresearch_mcp.errors import EvaluationError, RefusedError, RunFailedError
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import FAILURES
from autoresearch_mcp.text import plain, sound, tail

POLL = 0.02  # seconds between looks at the process
READY = 30.0  # seconds that a command which starts early has for loading before the run's clock starts without it
DETAILS, DETAIL_NAME, REASON = 32, 40, 2000  # how many figures beside the score; characters of a name, of a refusal


@dataclass
class Score:
    score: float
    holdout: float | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])


def parse_score(output: bytes, returncode: int | None) -> Score:
    """The score in a scoring command's output. Raises RefusedError or EvaluationError, and nothing else."""
    if returncode != 0:
        raise EvaluationError(f"the scoring command ended with exit status {returncode}")
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    if not lines:
        raise EvaluationError("the scoring command printed nothing; its last line must be the score")
    try:
        answer: Any = json.loads(lines[-1])
    except ValueError as error:
        raise EvaluationError(f"the scoring command's last line is no number and no JSON: {lines[-1][:200]!r}") from error
    except RecursionError as error:
        raise EvaluationError("the scoring command's last line is JSON nested too deeply to read") from error
    answer = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {"score": answer}
    if "refused" in answer:
        failure = answer.get("failure")
        raise RefusedError(_shown(answer["refused"], REASON), failure if failure in FAILURES else "refused")
    holdout = None if answer.get("holdout") is None else _number(answer["holdout"], "holdout")
    return Score(_number(answer.get("score"), "score"), holdout, _details(answer.get("details")))


def _details(given: object) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise EvaluationError(f"the scoring command gave {_shown(given)} as details; they must be an object of names and numbers")
    details = cast("dict[str, object]", given)
    if len(details) > DETAILS:
        raise EvaluationError(f"the scoring command gave {len(details)} details; at most {DETAILS} are recorded")
    return {_shown(name, DETAIL_NAME): _number(value, _shown(name, DETAIL_NAME)) for name, value in details.items()}


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(f"the scoring command gave {_shown(value)} as {name}; it must be a number")
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise RefusedError(f"the {name} is {number}: the result is not a finite number", "nan")
    return number


def _shown(value: object, characters: int = 200) -> str:
    """Any JSON value as text that can be recorded and shown: bounded, no control characters, no half of a surrogate pair."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        text = "something nested deeply"
    return plain(sound(text[: 2 * characters]))[:characters]


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
        """Ends the process, whatever it does. May be called again."""
        self.child.end()
        self._log.close()

    async def score(self, stop_asked: Callable[[], bool]) -> Score:
        """The score of the outputs that now lie in the scoring folder. Raises RunFailedError."""
        limit = self._spec.task.run.evaluate_seconds
        try:
            self._release()
            with anyio.move_on_after(limit) as patience:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.child.pump)
                    while self.child.returncode is None and not stop_asked():  # noqa: ASYNC110 (nothing signals it)
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
            except (BrokenPipeError, ValueError):  # ValueError: told before
                return
