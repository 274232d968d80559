"""What state a process is in, by its files under /proc.

psutil asks the first thread alone, which a run can end before the others.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

PF_EXITING = 0x4  # in the flags of a thread, see proc(5)
LOOKS = 5  # at a process whose first thread has ended, LOOK_EVERY apart: one that ends has not all its threads ending in one moment
LOOK_EVERY = 0.02  # seconds


def processes(users: Sequence[int]) -> list[int]:
    """Numbers of the living processes that run under one of the ids. Linux."""
    wanted = {str(user) for user in users}
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            status = read_status(name)
            if wanted & set(status.get("Uid", "").split()) and not _ended(status):
                found.append(int(name))
    return found


def ended(pid: int) -> bool:
    """Whether a process has ended, with all its threads. The system calls one whose first thread has ended a zombie too, while the
    others run on, hold memory and fork.
    """
    if sys.platform == "linux":
        return _ended(read_status(str(pid)))
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def headless(pid: int) -> bool:
    """Whether a process goes on although its first thread has ended; not one whose other threads are ending too. Linux."""
    for _ in range(LOOKS - 1):
        if not _headless(pid):
            return False
        time.sleep(LOOK_EVERY)
    return _headless(pid)


def _headless(pid: int) -> bool:
    status = read_status(str(pid))
    if status.get("State", "X")[0] not in "ZX" or _ended(status):
        return False
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(not _exiting(f"/proc/{pid}/task/{thread}/stat") for thread in threads if thread != str(pid))


def _exiting(path: str) -> bool:
    """Whether a thread is on its way out: PF_EXITING in the flags of its stat file, or a signal to end that it has not got round to
    yet, see proc(5). True where it is gone.
    """
    try:
        with open(path, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        flags, pending = int(fields[6]), int(fields[28])
    except (OSError, IndexError, ValueError):
        return True
    return bool(flags & PF_EXITING or pending & 1 << signal.SIGKILL - 1)


def _ended(status: dict[str, str]) -> bool:
    return status.get("State", "X")[0] in "ZX" and int(status.get("Threads", "0")) < 2


def read_status(process: str) -> dict[str, str]:
    """What the system says of a process, see proc(5); nothing where it is gone. Linux."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
