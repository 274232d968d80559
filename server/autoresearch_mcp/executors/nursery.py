"""A process that has imported what a host needs, and forks one for each run that it is given: most of a host's start is imports.

    python -P -m autoresearch_mcp.executors.nursery SOCKET

It has one thread, knows of a run no more than which packages it may import, and ends when whoever has the other end of the socket
is gone; its hosts do not.
"""

import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import anyio

from autoresearch_mcp.run import levels, visible
from autoresearch_mcp.run.spec import RunSpec

PROGRAM = "autoresearch_mcp.executors.nursery"
ANSWER = 20.0  # seconds that a host has to say that it is there, or takes a run
SIZE = 8  # bytes in which a request says how long it is
REAPING = 5.0  # seconds after which hosts that have ended are taken note of, at the latest
NOD = b"\n"


class Nursery:
    """Has hosts forked, from the second on that this process starts: most commands start one."""

    def __init__(self) -> None:
        self.many = False
        """Whether this process is to start many: then the first is forked too."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self, spec: RunSpec, lock: int) -> bool:
        """Whether a run that is laid out, with the lock on it, has its host now. Raises OSError where its log cannot be written."""
        ours, theirs = socket.socketpair()
        with open(spec.host_log, "ab") as log, ours, theirs:
            try:
                if not self._ask(spec, [lock, log.fileno(), theirs.fileno()]):
                    return False
                theirs.close()
                ours.settimeout(ANSWER)
                if ours.recv(1) == NOD:
                    ours.sendall(NOD)
                    return True
            except OSError:
                pass
        self.end()
        return False

    def _ask(self, spec: RunSpec, descriptors: list[int]) -> bool:
        with self._lock:
            self._starts += 1
            if (self._starts == 1 and not self.many) or sys.platform == "darwin":  # where libraries may not stand a fork
                return False
            if self._socket is None:
                self._socket, theirs = socket.socketpair()
                self._socket.settimeout(ANSWER)
                with theirs:
                    self._process = begin([PROGRAM, str(theirs.fileno())], subprocess.DEVNULL, None, theirs.fileno())
            ask(self._socket, spec, descriptors)
            return True

    def end(self) -> None:
        """Ends that process; the next start makes another."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            if self._process is not None:  # it may hang, with the lock of a run in its hands
                self._process.kill()
                self._process.wait()
            self._socket = self._process = None


def begin(program: list[str], log: IO[bytes] | int, folder: Path | None, *descriptors: int) -> subprocess.Popen[bytes]:
    """Starts one of our modules as a process that needs nobody. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *program],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        env=environment(),
        pass_fds=descriptors,
        start_new_session=True,
    )


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}


def ask(nursery: socket.socket, spec: RunSpec, descriptors: list[int]) -> None:
    """Asks for a run's host, with the descriptors of the run's lock, of its log and of a socket. Raises OSError."""
    request = {"folder": str(spec.folder), "environment": environment(), "packages": spec.task.run.packages}
    content = json.dumps(request).encode()
    socket.send_fds(nursery, [len(content).to_bytes(SIZE, "big")], descriptors)
    nursery.sendall(content)


def serve(asked: socket.socket) -> str | None:
    """Forks a host for each request. Returns in each of them, with the folder of its run; in this process, with None, when nobody
    asks any more.
    """
    watch = select.poll()
    watch.register(asked, select.POLLIN)
    while True:
        ready = watch.poll(1000 * REAPING)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not ready:
            continue
        size, descriptors, _, _ = socket.recv_fds(asked, SIZE, 3)
        if not size:
            return None
        request = json.loads(_exactly(asked, int.from_bytes(size + _exactly(asked, SIZE - len(size)), "big")))
        visible.get_ready(request["packages"])
        if os.fork() == 0:
            asked.close()
            return _become(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(request: dict[str, Any], lock: int, log: int, whose: int) -> str:
    """Makes this process the host that was asked for. The lock stays open: it is what says that the run is alive."""
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    with socket.socket(fileno=whose) as answer:
        answer.sendall(NOD)
        if answer.recv(1) != NOD:  # it took too long: whoever asked has started another, or is gone
            os._exit(0)
    return request["folder"]


def _exactly(asked: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        if not (more := asked.recv(count - len(content))):
            raise EOFError("a request is not whole")
        content += more
    return content


def main(descriptor: str) -> None:
    from autoresearch_mcp.executors import host  # here, for whoever asks needs none of it

    anyio.run(anyio.sleep, 0)  # imports what an event loop needs
    visible.get_ready([])
    levels.get_ready()
    gc.collect()
    gc.freeze()  # so that what all hosts share is not written to
    if (folder := serve(socket.socket(fileno=int(descriptor)))) is not None:
        host.main(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
