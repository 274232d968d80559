"""Bounds on what a run may use, and the end of everything it started."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MAX_FILES = 100_000  # of a run; more would only be made to exhaust the disk's inodes
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


def end_descendants(patience: float = 2.0) -> bool:
    """Ends every descendant of this process, also those that fork while it happens. True when none is left."""
    end_all(descendants(), patience)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = [process for process in descendants() if _alive(process)]
        if not left:
            return True
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.02)
    return False


def reap_adopted(own: set[int]) -> None:
    """Collects ended children other than `own`: orphans of the run that this process, as subreaper, was given."""
    for process in psutil.Process().children():
        if process.pid not in own and not _alive(process):
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@dataclass(frozen=True)
class Usage:
    memory_mb: float
    processes: int
    disk_mb: float
    files: int


def default_memory_mb() -> int:
    """Nine tenths of the machine's memory: the rest is for everybody else."""
    return psutil.virtual_memory().total * 9 // 10 // 2**20


def _is_below(process: psutil.Process, pid: int) -> bool:
    try:
        return process.pid == pid or any(parent.pid == pid for parent in process.parents())
    except psutil.Error:
        return False


def _resident(process: psutil.Process) -> int:
    return process.memory_info().rss


def _proportional(process: psutil.Process) -> int:
    """Bytes, each shared page divided among those who share it; resident bytes where the system does not tell."""
    if sys.platform == "linux":
        try:
            return process.memory_full_info().pss
        except psutil.AccessDenied:
            pass
    return _resident(process)


def _memory(processes: list[psutil.Process], held: Callable[[psutil.Process], int]) -> list[int]:
    """Bytes that each living process holds."""
    sizes: list[int] = []
    for process in processes:
        try:
            sizes.append(held(process))
        except psutil.Error:
            continue
    return sizes


def usage(folder: Path, peak_mb: float = 0.0, aside: int | None = None) -> Usage:
    """What all descendants but `aside` and its own hold in memory, how many they are, and what lies in the run's folder.

    Resident memory counts a page once for every process that shares it: after a fork the sum is only an upper bound. Where it
    passes `peak_mb`, the highest figure so far, and may be far off, proportional sizes are read, which takes longer. Linux.
    """
    running = descendants()
    if aside is not None:
        running = [process for process in running if not _is_below(process, aside)]
    sizes = _memory(running, _resident)
    most_off = sum(sizes) - max(sizes, default=0)
    if sum(sizes) > peak_mb * 2**20 and most_off > sum(sizes) / 20:
        sizes = _memory(running, _proportional)
    memory, processes = sum(sizes), len(sizes)
    size = files = 0
    pending = [str(folder)]
    while pending and files <= MAX_FILES:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return Usage(memory / 2**20, processes, size / 2**20, files)


class BoundedLog:
    """Keeps the beginning and the end of an output within `limit` bytes, on disk while it grows."""

    def __init__(self, path: Path, limit: int):
        self.path, self.limit = path, limit
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by close)
        self._size = self.dropped = 0

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.limit // 4):
            part = data[start : start + self.limit // 4]
            if self._size + len(part) > self.limit:
                self._compact()
            self._file.write(part)
            self._size += len(part)

    def _compact(self) -> None:
        """Drops the middle: the first half of the limit stays, and the last eighth."""
        head, tail = self.limit // 2, self.limit // 8
        self._file.seek(self._size - tail)
        end = self._file.read()
        self.dropped += self._size - head - tail
        note = f"\n[... {self.dropped} bytes of output are not kept ...]\n".encode()
        self._file.seek(head)
        self._file.truncate()
        self._file.write(note + end)
        self._size = head + len(note) + len(end)

    def close(self) -> None:
        self._file.close()
