"""Scoring: runs the task's scoring command on a run's outputs, in a process of its own, and takes the score from its answer.

That is the last line it prints, or what it writes to a file of its own: a number, or {"score": number, "holdout": number,
"details": {name: number}, "marks": {name: text}}, or {"refused": reason, "failure": name}. Where a run declares itself first, that
is answered by {"marks": {name: text}} or a refusal.

The command is the task's and trusted, but it may echo what a run wrote; so whatever it prints comes out as a score or as a failure
with a name, within bounds. And it may echo what is sealed; so where a task has sealed data, what it prints beside its answer, a
traceback for one, is shown to nobody but a human: it stays in the run's scoring.log.
"""

import json
import math
import os
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from autoresearch_mcp.errors import EvaluationError, RefusedError, RunFailedError
from autoresearch_mcp.run.child import LAST_LINE_BYTES, Child
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import FAILURES
from autoresearch_mcp.text import plain, sound, tail

READY = 60.0  # seconds that a command which starts early has for loading
CHECK = 120.0  # seconds that it has for a declaration
ANSWER = ("score", "holdout", "details", "marks", "refused", "failure")
DETAILS, DETAIL_NAME, REASON = 32, 40, 2000  # how many figures beside the score; characters of a name, of a refusal
LARGEST = 1e100  # score
MARK = 40  # characters of what a mark says
ANSWERS, CALLS = "AUTORESEARCH_ANSWER", "AUTORESEARCH_CALLS"  # numbers of open files, in the environment; see evaluate/child.py
DECLARED, SCORE = b"declared\n", b"score\n"  # what a command that started early is told


Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]


@dataclass
class Score:
    score: float
    holdout: float | None = None
    details: dict[str, float] = field(default_factory=dict[str, float])
    marks: dict[str, str] = field(default_factory=dict[str, str])


def parse_score(output: bytes, returncode: int | None) -> Score:
    """The score in a scoring command's output. Raises RefusedError or EvaluationError, and nothing else."""
    if returncode != 0:
        raise EvaluationError(f"the scoring command ended with exit status {returncode}")
    lines = output.decode("utf-8", errors="replace").strip().splitlines()
    if not lines:
        raise EvaluationError("the scoring command gave no answer: a number or JSON, in its last line or where metric.answer says")
    try:
        answer: Any = json.loads(lines[-1])
    except ValueError as error:
        raise EvaluationError(f"the scoring command's last line is no number and no JSON: {lines[-1][:200]!r}") from error
    except RecursionError as error:
        raise EvaluationError("the scoring command's last line is JSON nested too deeply to read") from error
    answer = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {"score": answer}
    if unknown := [_shown(name, DETAIL_NAME) for name in answer if name not in ANSWER]:
        raise EvaluationError(
            f"the scoring command's answer has {', '.join(unknown[:5])}; known are {', '.join(ANSWER)}, and figures go into details"
        )
    _refuse(answer)
    holdout = None if answer.get("holdout") is None else _score(answer["holdout"], "holdout")
    return Score(_score(answer.get("score"), "score"), holdout, _details(answer), _marks(answer))


def median(scores: Sequence[Score]) -> Score:
    """Of several answers on the same outputs: the median of every figure that all of them give."""
    first = scores[0]
    sealed = [score.holdout for score in scores if score.holdout is not None]
    common = [name for name in first.details if all(name in score.details for score in scores)]
    details = {name: statistics.median(score.details[name] for score in scores) for name in common}
    holdout = statistics.median(sealed) if len(sealed) == len(scores) else None
    return Score(statistics.median(score.score for score in scores), holdout, details, first.marks)


def parse_declared(line: bytes) -> dict[str, str]:
    """The marks in a scoring command's answer to a declaration. Raises RefusedError or EvaluationError, and nothing else."""
    try:
        answer: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationError("the scoring command did not answer the declaration") from error
    if not isinstance(answer, dict):
        raise EvaluationError("the scoring command's answer to the declaration is no JSON object")
    answer = cast("dict[str, Any]", answer)
    _refuse(answer)
    return _marks(answer)


def _refuse(answer: dict[str, Any]) -> None:
    if "refused" in answer:
        failure = answer.get("failure")
        raise RefusedError(_shown(answer["refused"], REASON), failure if failure in FAILURES else "refused")


def _marks(answer: dict[str, Any]) -> dict[str, str]:
    return {name: _shown(value, MARK) for name, value in _named(answer, "marks", "texts")}


def _details(answer: dict[str, Any]) -> dict[str, float]:
    return {name: _number(value, name) for name, value in _named(answer, "details", "numbers")}


def _named(answer: dict[str, Any], member: str, values: str) -> list[tuple[str, object]]:
    """Names, made fit to show, and values of an object in the answer; none where it is left out."""
    given = answer.get(member)
    if given is None:
        return []
    if not isinstance(given, dict):
        raise EvaluationError(f"the scoring command gave {_shown(given)} as {member}; they must be an object of names and {values}")
    named = cast("dict[str, object]", given)
    if len(named) > DETAILS:
        raise EvaluationError(f"the scoring command gave {len(named)} {member}; at most {DETAILS} are recorded")
    return [(_shown(name, DETAIL_NAME), value) for name, value in named.items()]


def _score(value: object, name: str) -> float:
    """A number that can be reckoned with: its square, too, must be one."""
    number = _number(value, name)
    if abs(number) > LARGEST:
        raise RefusedError(f"the {name} is {number:g}, beyond {LARGEST:g}: the result has diverged", "diverged")
    if 0 < abs(number) < 1 / LARGEST:
        raise EvaluationError(f"the scoring command gave {number:g} as {name}, below {1 / LARGEST:g}; give it in another unit")
    return number


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
    and then waits for what `declared` and `score` send: so loading takes neither the run's time nor anybody's after it.
    """

    def __init__(
        self, spec: RunSpec, command: list[str], environment: dict[str, str], cores: Sequence[int] = (), told: Sequence[int] = ()
    ):
        self._spec = spec
        self._log = BoundedLog(spec.scoring_log, spec.task.run.log_bytes)
        self._waits, self._loaded = spec.task.metric.starts_early, False
        stdin = subprocess.PIPE if self._waits else subprocess.DEVNULL
        self._answer = tempfile.TemporaryFile() if spec.task.metric.answer == "descriptor" else None  # noqa: SIM115 (closed by end)
        self.calls, theirs = socket.socketpair()
        with theirs:
            environment = environment | {CALLS: str(theirs.fileno())}
            given = [theirs.fileno(), *told]
            if self._answer is not None:
                environment[ANSWERS] = str(self._answer.fileno())
                given.append(self._answer.fileno())
            self.child = Child(command, spec.scoring, environment, self._log, given, stdin=stdin, cores=cores)

    def take_on(self, spec: RunSpec) -> None:
        """What was started for a run to come serves this one. Raises OSError."""
        self._spec, self._log = spec, BoundedLog(spec.scoring_log, spec.task.run.log_bytes)
        self.child.log_to(self._log)

    async def ready(self) -> None:
        """Returns when a command that starts early has loaded, so that it takes no compute from what comes next."""
        if self._waits and not self._loaded:
            with anyio.move_on_after(READY):
                await self.child.line()
            self._loaded = True

    async def declared(self) -> dict[str, str]:
        """What the command says of the declaration that now lies in the scoring folder. Raises RunFailedError."""
        try:
            await self.ready()
            self._tell(DECLARED)
            with anyio.move_on_after(CHECK):
                while line := await self.child.line():
                    if line.startswith(b"{"):  # else a library's warning
                        return parse_declared(line)
                raise EvaluationError("the scoring command ended over the declaration")
            raise RunFailedError(
                "refused", "refused", f"the declaration could not be checked within {CHECK:.0f} s: it is too large"
            )
        except RefusedError as error:
            raise RunFailedError("refused", error.failure, str(error)) from error
        except EvaluationError as error:
            raise self._failed(error) from error

    def _failed(self, error: EvaluationError) -> RunFailedError:
        """Names what the scoring command did, and where nothing is sealed, what it printed."""
        if self._spec.task.data.sealed:
            return RunFailedError("crash", "scoring", f"scoring failed; a human can read why in its {self._spec.scoring_log.name}")
        return RunFailedError("crash", "scoring", f"{error}\n{tail(self._spec.scoring_log)}")

    def end(self) -> None:
        """Ends the process, whatever it does. May be called again."""
        self.child.end()
        self.calls.close()
        if self._answer is not None:
            self._answer.close()
        self._log.close()

    async def score(
        self, stopped: Callable[[], RunFailedError | None], serve: Callable[[socket.socket], Coroutine[Any, Any, None]]
    ) -> Score:
        """The score of the outputs that now lie in the scoring folder. Raises RunFailedError, also what `stopped` says. `serve`
        answers what the command asks meanwhile.
        """
        limit = self._spec.task.run.evaluate_seconds
        try:
            stop: RunFailedError | None = None
            self._tell(SCORE, last=True)
            with anyio.move_on_after(limit) as patience:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.child.pump)
                    tasks.start_soon(serve, self.calls)
                    while self.child.returncode is None and not (stop := stopped()):
                        await self.child.wait()
                    tasks.cancel_scope.cancel()
            self.child.drain()
            if patience.cancelled_caught:
                raise RunFailedError("timeout", "timeout", f"scoring took longer than {limit:.0f} s")
            if stop is not None:
                raise stop
            return parse_score(self._answered(), self.child.returncode)
        except RefusedError as error:
            raise RunFailedError("refused", error.failure, str(error)) from error
        except EvaluationError as error:
            raise self._failed(error) from error
        finally:
            self.end()

    def _answered(self) -> bytes:
        """What the command says, where the task says that it says it."""
        return self.child.tail if self._answer is None else os.pread(self._answer.fileno(), LAST_LINE_BYTES, 0)

    def _tell(self, word: bytes, last: bool = False) -> None:
        """Tells a command that started early what is there. One that has died already says so by its status."""
        pipe = self.child.process.stdin
        if pipe is not None:
            try:
                pipe.write(word)
                pipe.flush()
                if last:
                    pipe.close()
            except (BrokenPipeError, ValueError):  # ValueError: told before
                return
