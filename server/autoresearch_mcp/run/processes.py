"""The processes of a run: how this process comes to own them all, and how it ends them all.

A run may fork, daemonise, clear its environment and start sessions of its own. On Linux its orphans fall to this process, so that
its descendants are all there is. Where the run has a user id of its own, one call ends all that is under it, for the kernel lets
none of them fork meanwhile; elsewhere the tree is walked, faster than a chain of forks can run away from it, until it is empty.

When this process is gone too, `strays` finds what is left by what a process cannot put off: the user id, a resource limit that the
filter on system calls keeps it from changing, and, where there is neither, its environment and its working directory.
"""

import contextlib
import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil

from autoresearch_mcp.run.status import ended, processes

END_SECONDS = 10.0  # after which a process that was killed counts as one that cannot be
SETRESUID = {"x86_64": 117, "aarch64": 147}  # the system call, where a run can have an id of its own
CHASES, NEWEST = 200, 8  # looks at the newest processes, and how many of them
MARK = "AUTORESEARCH_RUN"  # in the environment of every process of a run, so that strays can be found


def become_subreaper() -> None:
    """Orphans of the run become children of this process instead of init's, so that none escapes by forking twice. Linux."""
    if sys.platform == "linux":
        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """For the child between fork and exec: it is killed when its parent dies. Linux."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_first() -> None:
    """For the child between fork and exec: when memory runs out, the kernel ends it and all that it starts before anybody else. It
    is said here, since no sandbox lets it be said, or taken back, inside. Linux.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def descendants(pid: int) -> list[int]:
    """Children of a process, their children and so on, as far as they can be found while they come and go."""
    found = _children(pid)
    for child in found:
        found += _children(child)
    return found


def end_descendants(own: Collection[int] = (), users: Sequence[int] = ()) -> list[str]:
    """Ends every descendant of this process and all that runs under `users`, also those that fork while it happens, and collects
    the ended but its `own` children. Returns what is left all the same, as "number (name)": a process that waits for a dead disk or
    driver cannot be ended by anybody.
    """
    return _end(lambda: _descendants(own), users)


def end_tree(pid: int) -> None:
    """Ends a process and all that descends from it now. What had left the tree is ended with the run."""
    for found in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            os.kill(found, signal.SIGKILL)


def end_orphans(own: Collection[int]) -> None:
    """Ends what was left to this process by a child that has ended, with all below it, and nothing of its `own` children."""
    deadline = time.monotonic() + END_SECONDS
    while (left := [pid for pid in _children(os.getpid()) if pid not in own]) and time.monotonic() < deadline:
        for pid in left:
            end_tree(pid)
            _collect(pid)


def end_strays(folder: str, mark: int, users: Sequence[int]) -> list[str]:
    """Ends every process of a run whose supervisor is gone. Returns what is left all the same."""

    def left() -> set[int]:
        found = {process.pid for process in strays(folder, mark)}
        if found and mark:
            _chase(mark)
        return found

    return _end(left, users)


def strays(folder: str, mark: int = 0) -> list[psutil.Process]:
    """Processes of a run whose supervisor is gone: by the limit they carry, the mark in their environment, or where they work."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, folder, mark)]


def reap_adopted(own: Collection[int]) -> None:
    """Collects ended children other than `own`: orphans of the run that this process, as subreaper, was given."""
    for pid in _children(os.getpid()):
        if pid not in own:
            _collect(pid)


# --- ending -----------------------------------------------------------------------------------------------------------


def _end(find: Callable[[], Collection[int]], users: Sequence[int]) -> list[str]:
    """Kills what `find` names and what runs under `users`, until nothing is left or END_SECONDS are over."""
    deadline = time.monotonic() + END_SECONDS
    seen: set[int] = set()
    while True:
        for user in users:
            _kill_all_of(user)
        left = {*find(), *(processes(users) if users else ())}
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return [f"{pid} ({_name(pid)})" for pid in sorted(left)]
        if left <= seen:  # nothing new: they are on their way out
            time.sleep(0.005)
        seen = left


def _descendants(own: Collection[int]) -> set[int]:
    """Descendants of this process. Each is killed as it is found, since a moment later it may have forked and gone; for the same
    reason an ended one counts, for what it forked may be on its way here, and only a list without any is an end.
    """
    found: set[int] = set()
    gone = {pid for pid in own if ended(pid)}  # asked first: what they left came here before they did
    us = os.getpid()
    parents = [us]
    while parents:
        parent = parents.pop()
        for pid in _children(parent):
            if parent == us and pid in gone:
                continue  # for its owner to collect
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            if parent == us and pid not in own:
                _collect(pid)
            found.add(pid)
            parents.append(pid)
    return found


def _children(pid: int) -> list[int]:
    """As the kernel lists them, in microseconds; by a walk over all processes where it does not."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        lists = [_read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    except OSError:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    return [int(child) for listed in lists for child in listed.split()]


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # four times a second for every thread of a run
        return file.read()


def _collect(pid: int) -> bool:
    """Whether this child has ended; then it is forgotten."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _kill_all_of(user: int) -> None:
    """Kills everything under a user id and its partner in the pair at once, from a thread that takes them for a moment. No other
    thread does, because libc, which would have them follow, is not asked; the saved id stays root's, so that there is a way back.

    The partner is the real id, since whoever has the real id of a thread may signal it: the run could end us in that moment.
    """
    libc, number = ctypes.CDLL(None, use_errno=True), SETRESUID[platform.machine()]
    partner = user ^ 1
    libc.syscall(number, partner, user, -1)
    try:
        if os.getresuid() == (partner, user, 0):  # as root, the call below would end the machine
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)  # all that this id may signal, but not this process
    finally:
        libc.syscall(number, 0, 0, -1)


def _chase(mark: int) -> None:
    """Kills a chain of forks under this user id by looking at the newest processes alone, many times over."""
    for _ in range(CHASES):
        newest = int(Path("/proc/loadavg").read_text().split()[-1])
        for pid in range(newest, max(newest - NEWEST, 1), -1):
            if _carries(pid, mark):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def _belongs(process: psutil.Process, folder: str, mark: int) -> bool:
    try:
        if ended(process.pid):
            return False
        if mark and _carries(process.pid, mark):
            return True
        return process.environ().get(MARK) == folder or Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def _carries(pid: int, mark: int) -> bool:
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return False
    return any(str(mark) in line.split() for line in limits.splitlines() if line.startswith("Max realtime timeout"))


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "ended by now"
