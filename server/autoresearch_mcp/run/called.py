"""What a scoring command has executed: it asks here, and the editable file is run in the sandbox that runs have, in a folder made
anew, with no data but what it is sent. So outputs come back as data, and the number is computed where the agent's code is not.

One JSON object a line over an inherited socket: {"op": "start", "command": [...]} is answered {"number": n} with two descriptors,
the input and the output of what was started; {"op": "end", "number": n} ends it with all that it started, and is answered {}.
evaluate/child.py is the other half. The scoring command is trusted; what it has executed is not, and talks to nobody but it.
"""

import os
import socket
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup, UNIXSocketStream

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.control import line, messages
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import end_tree

MOST = 16  # that are at work at once


class Called:
    """Of one scoring."""

    def __init__(self, cell: Cell, log: BoundedLog):
        """`log` takes what they print beside their answers."""
        self._cell, self._log = cell, log
        self._at_work: dict[int, _AtWork] = {}
        self._started = 0

    @property
    def pids(self) -> list[int]:
        return [work.child.pid for work in self._at_work.values()]

    async def serve(self, ours: socket.socket) -> None:
        """Answers until the scoring command closes its end; ends what is still at work then."""
        try:
            async with await UNIXSocketStream.from_socket(ours.dup()) as stream, anyio.create_task_group() as tasks:
                async for message in messages(stream):
                    await self._answer(stream, message, tasks)
                tasks.cancel_scope.cancel()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            for work in self._at_work.values():  # nobody reads from them any more
                work.end()
            self._at_work.clear()

    async def _answer(self, stream: UNIXSocketStream, message: Any, tasks: TaskGroup) -> None:
        match message:
            case {"op": "start", "command": [*command]} if command and len(self._at_work) < MOST:
                await self._start(stream, [str(part) for part in command], tasks)
            case {"op": "start"}:
                await stream.send(line(error=f"a command is a list of texts, and at most {MOST} are at work at once"))
            case {"op": "end", "number": int(number)}:
                if (work := self._at_work.pop(number, None)) is not None:
                    work.scope.cancel()
                    await work.read.wait()  # else the next one's output could have the number of what is still waited for
                    work.end()
                await stream.send(line())
            case _:
                await stream.send(line(error="unknown request; one starts and ends commands"))

    async def _start(self, stream: UNIXSocketStream, command: list[str], tasks: TaskGroup) -> None:
        stdin, theirs = os.pipe()
        ours, stdout = os.pipe()
        try:
            child = self._cell.start_called(command, self._log, stdin, stdout)
        except (OSError, RunFailedError) as error:
            os.close(theirs)
            os.close(ours)
            await stream.send(line(error=str(error)))
            return
        finally:
            os.close(stdin)
            os.close(stdout)
        self._started += 1
        self._at_work[self._started] = work = _AtWork(self._cell, child)
        tasks.start_soon(work.pump)
        try:
            await stream.send_fds(line(number=self._started), [theirs, ours])
        finally:
            os.close(theirs)
            os.close(ours)


class _AtWork:
    """One that was started."""

    def __init__(self, cell: Cell, child: Child):
        self._cell = cell
        self.child, self.scope, self.read = child, anyio.CancelScope(), anyio.Event()

    async def pump(self) -> None:
        """Takes what it complains of, until nothing comes or the scope is cancelled; then `read` is set."""
        try:
            with self.scope:
                await self.child.pump()
        finally:
            self.read.set()

    def end(self) -> None:
        end_tree(self.child.pid)
        with suppress(OSError):
            self.child.end()
        self._cell.done_with(self.child.folder)
