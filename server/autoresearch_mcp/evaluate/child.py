"""For scoring commands that must execute the editable file: it works in a sandboxed child and returns outputs as data.

    from autoresearch_mcp.evaluate.child import Function, answer

    with Function("recommend.py", "recommend") as recommend:
        lists = [recommend(user, history) for user, history in cases]
    answer(score=diversity(lists), details={"ndcg": ndcg(lists)})

The scoring command reads sealed data and says the number; were the file imported there, it could read the one and say the other.
In the child it has what a run has: the task's files, the packages that it lists, no data, no network, and the arguments of each
call. Time is best measured here, around a call, where the file has no hand on the clock; what it may do beforehand is to work
between two calls, so ask each time for something that it could not know.

Whatever the child does, dies, hangs, answers nonsense, ends the scoring with a refusal that blames the file and not the command:
leaving the `with` by a ChildError says so. A scoring command to which a failed child is a figure catches that inside.
"""

import json
import math
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

CALLS, ANSWERS = "AUTORESEARCH_CALLS", "AUTORESEARCH_ANSWER"  # run/scoring.py sets them
ANSWER_BYTES = 1 << 26  # of one answer
BLOCK = 1 << 20
RUNNER = """
import importlib.util, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the file prints is no answer
sys.path.insert(0, os.getcwd())
spec = importlib.util.spec_from_file_location("edited", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["edited"] = module
spec.loader.exec_module(module)
called = getattr(module, sys.argv[2])
for line in sys.stdin:
    answers.write(json.dumps(called(*json.loads(line))) + "\\n")
    answers.flush()
"""


class ChildError(Exception):
    """The child gave no usable answer; `failure` is the name that the run is recorded under."""

    def __init__(self, reason: str, failure: str = "error"):
        super().__init__(reason)
        self.failure = failure


def answer(**content: Any) -> None:
    """Says the score, where the task wants it said: `score`, and if you like `holdout`, `details`, `marks`; or `refused` with
    `failure`. To be called once.
    """
    text = json.dumps(content)
    if ANSWERS in os.environ:
        with open(int(os.environ[ANSWERS]), "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
    else:
        print(text, flush=True)


class Child:
    """A command in the sandbox of runs, with a line of JSON in and a line of JSON out. A context manager."""

    def __init__(self, command: Sequence[str], seconds: float = 60.0):
        """`command` knows `{python}`, with what runs may import, and `{preset}` and `{seed}`. `seconds` is how long an answer may
        take, the first with the start. Raises RuntimeError outside of a scoring command.
        """
        if CALLS not in os.environ:
            raise RuntimeError("only a scoring command has children: run it with `autoresearch-mcp try`")
        self.seconds = seconds
        self.elapsed = 0.0
        """Seconds that the last answer took."""
        with socket.socket(fileno=os.dup(int(os.environ[CALLS]))) as server:
            said, descriptors = _ask(server, op="start", command=list(command))
        if "error" in said:
            raise ChildError(f"it cannot be started: {said['error']}")
        self._number: int = said["number"]
        self._input, self._output = descriptors
        os.set_blocking(self._input, False)
        self._unread = b""

    def ask(self, value: Any, seconds: float | None = None) -> Any:
        """Sends a JSON value and returns the answer. Raises ChildError."""
        if self._unread or select.select([self._output], [], [], 0)[0]:
            raise ChildError("it said something before it was asked, or ended")
        begun = time.monotonic()
        line = json.dumps(value).encode() + b"\n"
        said = self._line(memoryview(line), begun + (self.seconds if seconds is None else seconds))
        self.elapsed = time.monotonic() - begun
        try:
            return json.loads(said, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            print(f"no JSON: {said[:200]!r}", file=sys.stderr)  # no agent is told: it may quote what was asked
            raise ChildError("it answered what is no JSON") from error

    def close(self) -> None:
        """Ends it, with all that it started."""
        if self._number:
            with socket.socket(fileno=os.dup(int(os.environ[CALLS]))) as server:
                _ask(server, op="end", number=self._number)
            os.close(self._input)
            os.close(self._output)
            self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        if isinstance(error, ChildError):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            answer(refused=str(error), failure=error.failure)
            raise SystemExit(0) from error

    def _line(self, sent: bytes | memoryview, deadline: float) -> bytes:
        """Sends, and returns the next line that comes, whole. It reads while it writes: the child may answer before it has all."""
        came, searched = bytearray(self._unread), 0
        while True:
            end = came.find(b"\n", searched)
            if end >= 0 and not sent:
                self._unread = bytes(came[end + 1 :])
                return bytes(came[:end])
            searched = len(came) if end < 0 else end
            if len(came) > ANSWER_BYTES:
                raise ChildError(f"it answered more than {ANSWER_BYTES >> 20} MiB")
            left = deadline - time.monotonic()
            readable, writable, _ = select.select([self._output], [self._input] if sent else [], [], max(0.0, left))
            if left <= 0 or not (readable or writable):
                raise ChildError("it took too long to answer", "timeout")
            if writable:
                try:
                    sent = sent[os.write(self._input, sent[:BLOCK]) :]
                except BrokenPipeError:
                    sent = b""
            if readable:
                block = os.read(self._output, BLOCK)
                if not block:
                    raise ChildError("it ended before it had answered")
                came += block


class Function(Child):
    """A function of a Python file, called with JSON values: `with Function("file.py", "name") as name: name(1, [2])`."""

    def __init__(self, path: str, name: str, seconds: float = 60.0):
        super().__init__(["{python}", "-c", RUNNER, path, name], seconds)

    def __call__(self, *arguments: Any) -> Any:
        """The function's answer to these arguments. Raises ChildError."""
        return self.ask(arguments)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON has")


def _ask(server: socket.socket, **message: Any) -> tuple[dict[str, Any], list[int]]:
    server.sendall(json.dumps(message).encode() + b"\n")
    data, descriptors, _, _ = socket.recv_fds(server, 1 << 16, 2)
    while not data.endswith(b"\n"):
        more = server.recv(1 << 16)
        if not more:
            raise ChildError("whoever runs the scoring has gone")
        data += more
    return json.loads(data), list(descriptors)
