"""The processes of a run: how this process comes to own them all, and how it ends them all.

A run may fork, daemonise and start sessions of its own. On Linux its orphans fall to this process, so that its descendants are
all there is; elsewhere one that forks twice escapes until `strays` finds it by the mark in its environment.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

END_SECONDS = 10.0  # after which a process that was killed counts as one that cannot be
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


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def strays(mark: str) -> list[psutil.Process]:
    """Processes of a run whose supervisor is gone: by the mark in their environment, or because they work in its folder."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == mark or Path(process.cwd()).is_relative_to(mark)
            if process.pid != os.getpid() and marked:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_all(processes: Iterable[psutil.Process], patience: float = 2.0) -> None:
    """SIGTERM, then SIGKILL for what is left after `patience` seconds."""
    alive: list[psutil.Process] = []
    for process in processes:
        try:
            process.terminate()
            process.resume()  # a stopped process would never see the signal
        except psutil.Error:
            continue
        alive.append(process)
    _, alive = psutil.wait_procs(alive, timeout=patience)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue


def end_descendants(patience: float = 2.0) -> list[str]:
    """Ends every descendant of this process, also those that fork while it happens. Returns what is left all the same, as
    "number (name)": a process that waits for a dead disk or driver cannot be ended by anybody.
    """
    end_all(descendants(), patience)
    deadline = time.monotonic() + END_SECONDS
    while True:
        left = [process for process in descendants() if _alive(process)]
        if not left or time.monotonic() > deadline:
            return [f"{process.pid} ({_name(process)})" for process in left]
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.02)


def reap_adopted(own: set[int]) -> None:
    """Collects ended children other than `own`: orphans of the run that this process, as subreaper, was given."""
    for process in psutil.Process().children():
        if process.pid not in own and not _alive(process):
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "ended by now"


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
