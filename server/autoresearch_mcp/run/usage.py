"""What a run, or its scoring, uses of memory, processes and disk, and whether that is more than its task allows. It looks; it ends
nothing.

What can be written is written by code that means to hide it, so folders are opened one relative to the other, never by a path: no
depth is out of reach, no link leads out, and a folder that is renamed meanwhile is still the one that was opened. What cannot be
counted (nesting without end, a folder that nobody may read) counts as too much. Files without a name count as long as a process
has them open. The price is a call per file four times a second, 0.3 s for MAX_FILES of them; what it misses is a file moved in the
very moment from what is still to be looked at to what has been, which the next look finds.
"""

import math
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run import status
from autoresearch_mcp.run.processes import descendants
from autoresearch_mcp.sections import Sandbox

MAX_FILES = 100_000  # of a run; more would only be made to exhaust the disk's inodes
MAX_DEPTH = 100  # of folders in folders; each is an open descriptor while it is looked into
MAX_OPEN = 20_000  # files that a run has open, of all its processes
AGAIN = 1.0  # seconds after which memory that is shared is read anew, though nothing has grown
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Usage:
    memory_mb: float
    processes: int
    disk_mb: float
    files: int
    uncounted: str = ""
    """Why there is more than was counted; empty where all was."""


@cache
def default_memory_mb() -> int:
    """Nine tenths of the machine's memory: the rest is for everybody else."""
    return psutil.virtual_memory().total * 9 // 10 // 2**20


def allowed_memory_mb(allowed: Sandbox) -> int:
    """What a task grants, or the default where it says nothing."""
    return allowed.memory_mb or default_memory_mb()


def shares(scoring: int | None) -> tuple[list[int], list[int]]:
    """All descendants of this process: the run's own, and those of its scoring command, the process `scoring`."""
    beside = {scoring, *descendants(scoring)} if scoring is not None else set[int | None]()
    found = descendants(os.getpid())
    return [pid for pid in found if pid not in beside], [pid for pid in found if pid in beside]


def _resident(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


def _proportional(pid: int) -> int:
    """Bytes, each shared page divided among those who share it; resident bytes where the system does not tell."""
    if sys.platform == "linux":
        try:
            return psutil.Process(pid).memory_full_info().pss
        except psutil.AccessDenied:
            pass
    return _resident(pid)


def _memory(pids: Sequence[int], held: Callable[[int], int]) -> list[int]:
    """Bytes that each living process holds."""
    sizes: list[int] = []
    for pid in pids:
        try:
            sizes.append(held(pid))
        except psutil.Error:
            continue
    return sizes


class Memory:
    """What the processes of a run hold of memory, from look to look.

    Resident memory counts a page once for every process that shares it: after a fork the sum is only an upper bound. Proportional
    sizes take longer to read: that is done where the bound passes the highest figure so far and may be far off. Where it stays
    below what is allowed, and no more is resident than when that was done last, it is not done again before AGAIN seconds are over:
    then the figure may be late, for a page that is written to is shared no more. Linux.
    """

    def __init__(self, allowed_mb: float = math.inf) -> None:
        self._allowed = allowed_mb * 2**20
        self._of: Sequence[int] = []
        self._resident = self._proportional = 0
        """Bytes of those processes when both were read last."""
        self._at = -AGAIN

    def held(self, pids: Sequence[int], peak: float = 0.0) -> tuple[int, int]:
        """Bytes, of how many living processes. What is no more than `peak` bytes may be an upper bound."""
        sizes = _memory(pids, _resident)
        resident, now = sum(sizes), time.monotonic()
        if resident <= peak or resident - max(sizes, default=0) <= resident / 20:
            return resident, len(sizes)
        if pids != self._of or resident > min(self._resident, self._allowed) or now - self._at > AGAIN:
            self._of, self._resident, self._at = pids, resident, now
            self._proportional = sum(_memory(pids, _proportional))
        return self._proportional, len(sizes)


def usage(
    folder: Path, running: Sequence[int], memory: Memory | None = None, peak_mb: float = 0.0, more: Sequence[Path] = ()
) -> Usage:
    """What these processes hold in memory, how many they are, and what they hold on disk: the folder, `more` of them, and files
    deleted but open. `memory` knows the looks before, `peak_mb` is the highest figure of memory so far.
    """
    bytes_held, count = (memory or Memory()).held(running, peak_mb * 2**20)
    held = Held()
    for place in (folder, *more):
        held.count_folder(place)
    held.count_deleted(running)
    held.check_threads(running)
    return Usage(bytes_held / 2**20, count, held.bytes / 2**20, held.files, held.uncounted)


class Held:
    """What is held on disk, counted by blocks, each file once whatever names it has."""

    def __init__(self) -> None:
        self.bytes = self.files = 0
        self.uncounted = ""
        self._seen: set[tuple[int, int]] = set()

    def count_folder(self, folder: Path) -> None:
        """All below the folder; stops where there is too much of anything."""
        opened: list[tuple[int, list[str]]] = []  # from the folder down: descriptor, and folders in it that are still to be opened
        try:
            self._enter(str(folder), None, opened)
            while opened and self.files <= MAX_FILES and not self.uncounted:
                descriptor, inner = opened[-1]
                if inner:
                    self._enter(inner.pop(), descriptor, opened)
                else:
                    os.close(opened.pop()[0])
        finally:
            for descriptor, _ in opened:
                os.close(descriptor)

    def _enter(self, name: str, parent: int | None, opened: list[tuple[int, list[str]]]) -> None:
        if len(opened) >= MAX_DEPTH:
            self.uncounted = f"folders nested more than {MAX_DEPTH} deep"
            return
        try:
            descriptor = os.open(name, FOLDER, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone, or something else by now
        except OSError as error:
            self.uncounted = f"a folder that cannot be looked into ({error.strerror})"
            return
        opened.append((descriptor, []))
        with os.scandir(descriptor) as entries:
            for entry in entries:
                self.files += 1
                if self.files > MAX_FILES:
                    return
                if entry.is_dir(follow_symlinks=False):
                    opened[-1][1].append(entry.name)
                try:
                    self._count(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue

    def _count(self, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
            self.bytes += found.st_blocks * 512
        elif key not in self._seen:
            self._seen.add(key)
            self.bytes += found.st_blocks * 512

    def count_deleted(self, pids: Sequence[int]) -> None:
        """Files that have no name any more, or never had one in a folder, and that one of the processes has open. Linux."""
        looked = 0
        for pid in pids if sys.platform == "linux" else ():
            try:
                with os.scandir(f"/proc/{pid}/fd") as entries:
                    for entry in entries:
                        looked += 1
                        if looked > MAX_OPEN:
                            self.uncounted = f"more than {MAX_OPEN} open files"
                            return
                        self._count_deleted(entry.path)
            except PermissionError:
                if not status.ended(pid):
                    self.uncounted = "a process whose open files cannot be seen (its program may not be read)"
                    return
            except OSError:
                continue  # the process has ended

    def check_threads(self, pids: Sequence[int]) -> None:
        """The system shows the memory and the open files of a process by its first thread. Linux."""
        for pid in pids if sys.platform == "linux" else ():
            if status.headless(pid):
                self.uncounted = "a process that goes on without its first thread"
                return

    def _count_deleted(self, path: str) -> None:
        try:
            found = os.stat(path)
        except OSError:
            return
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
            self._count(found)


def excess(used: Usage, allowed: Sandbox, who: str = "it") -> RunFailedError | None:
    """How a run that uses this much fails, or whose scoring does; None where it may. `who` did it, in words."""
    if used.processes > allowed.processes:
        reason = f"{who} had {used.processes} processes; {allowed.processes} are allowed (sandbox.processes)"
        return RunFailedError("crash", "killed", reason)
    memory = allowed_memory_mb(allowed)
    if used.memory_mb > memory:
        reason = f"{who} used {used.memory_mb:.0f} MiB of memory; {memory} are allowed (sandbox.memory_mb)"
        return RunFailedError("crash", "oom", reason)
    if used.disk_mb > allowed.disk_mb or used.files > MAX_FILES:
        reason = f"{who} wrote {used.disk_mb:.0f} MiB in {used.files} files; {allowed.disk_mb} MiB are allowed (sandbox.disk_mb)"
        return RunFailedError("crash", "killed", reason)
    if used.uncounted:
        reason = f"{who} had {used.uncounted}: what it wrote cannot be counted against {allowed.disk_mb} MiB (sandbox.disk_mb)"
        return RunFailedError("crash", "killed", reason)
    return None
