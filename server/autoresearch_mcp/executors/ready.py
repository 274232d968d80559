"""Hosts that wait between runs, each with what one run begins with made ready.

They belong to this process, and end with it, until a run is given to them; then they are that run's host and as detached as any.
All sessions of a process share them, whichever runs next: what waits takes memory.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from autoresearch_mcp.executors import nursery
from autoresearch_mcp.run.spec import RunSpec

MOST = 2  # that wait: one for the next run, and one for the run that follows it at once, as repeats do
ROOM = 4 << 30  # bytes of memory that must be free for more than one: each takes about half a GB
LONG = 300.0  # seconds that nobody has asked for a kind, after which it gives way to another
BROKEN = 60.0  # seconds that a kind is not tried again after a host of it has failed
LEAVING = 2.0  # seconds that one has to end by itself


@dataclass
class Waiting:
    """A host that has made ready a run like its draft."""

    kind: str
    draft: RunSpec
    host: subprocess.Popen[bytes]
    socket: socket.socket
    remove: Callable[[RunSpec], None]
    """Removes what it leaves."""

    @property
    def loaded(self) -> bool:
        return self.draft.loaded.exists()

    @property
    def alive(self) -> bool:
        return self.host.poll() is None

    def give(self, folder: Path, lock: int) -> bool:
        """Hands over a run that is laid out, and the lock on it. False where the host does not say that it has both."""
        self.socket.settimeout(nursery.ANSWER)
        try:
            socket.send_fds(self.socket, [os.fsencode(folder) + b"\n"], [lock])
            return self.socket.recv(1) == b"\n"
        except OSError:
            return False
        finally:
            self.socket.close()

    def end(self) -> None:
        """Ends it with all that it started: by itself, as it does when the socket closes, else at once."""
        self.socket.close()
        try:
            self.host.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.host.kill()
            self.host.wait()
        self.remove(self.draft)


class Ready:
    """Those of this process, the first made first."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._asked: dict[str, float] = {}
        """When each kind was asked for last."""
        self._failed: dict[str, float] = {}
        """When a host of a kind ended otherwise than by itself."""

    @property
    def waiting(self) -> list[Waiting]:
        """Those that are alive; of the others what they left is removed."""
        for waiting in [waiting for waiting in self._waiting if not waiting.alive]:
            self._waiting.remove(waiting)
            waiting.end()
            if waiting.host.returncode != 0:
                self._failed[waiting.kind] = time.monotonic()
        return self._waiting

    @property
    def most(self) -> int:
        return MOST if psutil.virtual_memory().available > ROOM else 1

    def make_room(self, kind: str) -> bool:
        """Whether another of a kind is of use, and may be added: one whose kind nobody asks for any more gives way."""
        now = time.monotonic()
        self._asked[kind] = now
        of_it, most = sum(waiting.kind == kind for waiting in self.waiting), self.most
        if of_it >= most or now - self._failed.get(kind, -BROKEN) < BROKEN:
            return False
        if len(self._waiting) >= most and not of_it:
            old = next((waiting for waiting in self._waiting if now - self._asked[waiting.kind] > LONG), None)
            if old is not None:
                self._waiting.remove(old)
                old.end()
        return len(self._waiting) < most

    def add(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def take(self, kind: str) -> Waiting | None:
        """One of a kind, for a run, that has made everything ready if there is one; None where none waits."""
        of_it = [waiting for waiting in self.waiting if waiting.kind == kind]
        if not of_it:
            return None
        found = next((waiting for waiting in of_it if waiting.loaded), of_it[0])
        self._waiting.remove(found)
        return found

    def end(self) -> None:
        """Ends all of them."""
        while self._waiting:
            self._waiting.pop().end()
        self._failed.clear()
