"""One start of an agent: a program with a prompt on its standard input, its last words, and the end of all that it has started.

What it starts may start more, in sessions of their own, and be left to init. On Linux such orphans fall to this process, so that
whatever is below it and not of its own session comes from the agent. All of it ends with the agent but the hosts of runs, which
outlive their server by design, and what is below them. Elsewhere what is found below the agent, and its group, is ended.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import psutil

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.executors.local import HOSTS
from autoresearch_mcp.run.processes import become_subreaper, die_with_parent
from autoresearch_mcp.text import plain

GRACE = 10.0  # seconds that it has to end what it started, when it is told to; a step that its server is in takes less
DEATH = 5.0  # seconds that what was killed has to be gone
KEPT = 1 << 16  # bytes of its output
PIPE = 1 << 20  # bytes that a pipe holds at most
POLL = 0.05


@asynccontextmanager
async def running(command: Sequence[str], prompt: str, folder: Path, variables: Mapping[str, str]) -> AsyncGenerator["Agent"]:
    """An agent that runs while this is open, unless it ends before, and of which nothing is left afterwards."""
    agent = Agent(command, prompt, folder, variables)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.pump)
            try:
                yield agent
            finally:
                with anyio.CancelScope(shield=True):
                    await agent.end()
                tasks.cancel_scope.cancel()
    finally:
        agent.close()


class Agent:
    """A started agent. `pump` must run beside it, or its pipe fills and it stalls."""

    def __init__(self, command: Sequence[str], prompt: str, folder: Path, variables: Mapping[str, str]):
        """Starts it in `folder`, with `variables` added to our environment. Raises AutoresearchError where it cannot be started."""
        become_subreaper()
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self._tail = b""
        self.left: list[str] = []
        """Numbers of processes that could not be ended."""
        try:
            with tempfile.TemporaryFile() as said:  # a file, for a pipe would have to be filled while it runs
                said.write(prompt.encode())
                said.seek(0)
                self.process = subprocess.Popen(
                    list(command),
                    cwd=folder,
                    env={**os.environ, **variables},
                    stdin=said,
                    stdout=write,
                    stderr=write,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
        except OSError as error:
            os.close(self._read)
            raise AutoresearchError(
                f"{command[0]} could not be started: {error}. Mend that, then start the night again."
            ) from error
        finally:
            os.close(write)

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll()

    @property
    def output(self) -> str:
        """The end of what it has printed, as plain text."""
        return plain(self._tail.decode("utf-8", errors="replace")).strip()

    async def pump(self) -> None:
        """Takes its output, of which the end is kept, until every writer is gone or the task is cancelled."""
        while True:
            await anyio.wait_readable(self._read)
            if not self._take():
                return

    async def end(self) -> None:
        """Tells it to end, waits, and ends it and all that it has started."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        await self._gone(GRACE)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.left = await self._gone(DEATH, kill=True)

    def close(self) -> None:
        """Takes what is in the pipe, and lets go of it. Not beside `pump`."""
        for _ in range(PIPE // KEPT):  # not for ever, if something is left that writes
            if not self._take():
                break
        os.close(self._read)

    # --- what it has started ---

    async def _gone(self, seconds: float, kill: bool = False) -> list[str]:
        """Waits until nothing of it is left, `seconds` at most; with `kill`, all that is found meanwhile is killed."""
        deadline = anyio.current_time() + seconds
        while (left := await anyio.to_thread.run_sync(self._started)) and anyio.current_time() < deadline:
            for process in left if kill else ():
                with suppress(psutil.Error):
                    process.kill()
            await anyio.sleep(POLL)
        return [str(process.pid) for process in left]

    def _started(self) -> list[psutil.Process]:
        """The agent and its descendants that live, orphans too; no host of a run, and nothing below it. Collects ended orphans."""
        self.process.poll()
        ours, living = os.getsid(0), list[psutil.Process]()
        for child in psutil.Process().children():
            if _session(child.pid) in (ours, None) or (child.pid != self.process.pid and _collect(child.pid)):
                continue
            living += _tree(child)
        return living

    def _take(self) -> bool:
        try:
            data = os.read(self._read, KEPT)
        except BlockingIOError:
            return False
        self._tail = (self._tail + data)[-KEPT:]
        return bool(data)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants that live, but for hosts and what is below them."""
    try:
        if root.status() == psutil.STATUS_ZOMBIE or not HOSTS.isdisjoint(root.cmdline()):
            return []
        return [root, *(process for child in root.children() for process in _tree(child))]
    except psutil.Error:  # it ended meanwhile; what it left falls to us, and is found at the next look
        return []


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _collect(pid: int) -> bool:
    """Whether this child has ended; then it is forgotten."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
