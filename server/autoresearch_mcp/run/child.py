"""One child process of the supervisor: started in a session of its own, its output taken into a bounded log."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio

from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import die_first, die_with_parent

LAST_LINE_BYTES = 1 << 20
DEATH = 1.0  # seconds that a killed process has to be gone
LOOK = 0.1  # seconds that one waits for a process before looking whether anybody wants its result
POLL = 0.02  # seconds between looks at a process, where the kernel does not tell that it has ended
BLOCK, PIPE_BYTES = 1 << 16, 1 << 20  # the kernel gives nobody without privileges a larger pipe


def _in_child(cores: Sequence[int]) -> None:
    die_with_parent()
    die_first()
    if cores:
        os.sched_setaffinity(0, cores)


class Child:
    """A started process. `pump` must run beside it, or its pipe fills and it stalls."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        environment: dict[str, str],
        log: BoundedLog,
        descriptors: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        cores: Sequence[int] = (),
        stdout: int | None = None,
    ):
        """`cores` are those that it is held to, with all that it starts; none for wherever this process may run. What it prints
        goes into the log, unless `stdout` takes it; what it complains of does in any case.
        """
        self.folder = folder
        self._log = log
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.tail = b""
        self._unread = b""  # of what was printed, for `line`
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=stdin,
                stdout=write if stdout is None else stdout,
                stderr=write,
                pass_fds=tuple(descriptors),
                start_new_session=True,
                preexec_fn=partial(_in_child, cores),
            )
        except BaseException:
            os.close(self._read)
            raise
        finally:
            os.close(write)

    def log_to(self, log: BoundedLog) -> None:
        """From now on; the log before is closed."""
        self._log.close()
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    async def wait(self, seconds: float = LOOK) -> None:
        """Until the process has ended, but no longer than so many seconds. On Linux the kernel says when, so that nobody looks
        meanwhile: that would take compute from the run.
        """
        with anyio.move_on_after(seconds):
            with suppress(OSError, AttributeError):  # a kernel, or a Python, that does not have it
                await self._told()
            while self.returncode is None:  # noqa: ASYNC110 (nothing else tells)
                await anyio.sleep(POLL)

    async def _told(self) -> None:
        """Returns when the kernel says that the process has ended. Raises OSError where it does not say."""
        if sys.platform == "linux":
            descriptor = os.pidfd_open(self.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)

    async def pump(self) -> None:
        """Takes the output until every writer is gone or the task is cancelled."""
        while True:
            await anyio.wait_readable(self._read)
            if not self._take():
                return

    async def line(self) -> bytes:
        """The next line that it prints; empty when nothing comes any more. Not beside `pump`."""
        while b"\n" not in self._unread:
            await anyio.wait_readable(self._read)
            if not self._take():
                return b""
        line, _, self._unread = self._unread.partition(b"\n")
        return line + b"\n"

    def drain(self) -> None:
        """Takes what is already in the pipe, when the process has ended; not more than a pipe holds, if something still writes."""
        for _ in range(PIPE_BYTES // BLOCK):
            if not self._take():
                return

    def end(self) -> None:
        """Ends the process and lets go of its output; does not wait for one that cannot die. May be called again."""
        if self.returncode is None:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(DEATH)
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def _take(self) -> bool:
        if self._read < 0:
            return False
        try:
            data = os.read(self._read, BLOCK)
        except BlockingIOError:
            return False
        self._log.write(data)
        self.tail = (self.tail + data)[-LAST_LINE_BYTES:]
        self._unread = (self._unread + data)[-LAST_LINE_BYTES:]
        return bool(data)
