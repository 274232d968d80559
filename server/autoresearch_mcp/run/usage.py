"""What a run uses of memory, processes and disk, and whether that is more than its task allows. It looks; it ends nothing."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run.processes import descendants
from autoresearch_mcp.task import Sandbox

MAX_FILES = 100_000  # of a run; more would only be made to exhaust the disk's inodes


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
    size, files = _held_on_disk(folder)
    return Usage(sum(sizes) / 2**20, len(sizes), size / 2**20, files)


def _held_on_disk(folder: Path) -> tuple[int, int]:
    """Bytes and number of all files below the folder; stops counting where there are too many."""
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
    return size, files


def excess(used: Usage, allowed: Sandbox) -> RunFailedError | None:
    """How a run that uses this much fails; None where it may."""
    if used.processes > allowed.processes:
        reason = f"it had {used.processes} processes; {allowed.processes} are allowed (sandbox.processes)"
        return RunFailedError("crash", "killed", reason)
    memory = allowed.memory_mb or default_memory_mb()
    if used.memory_mb > memory:
        reason = f"it used {used.memory_mb:.0f} MiB of memory; {memory} are allowed (sandbox.memory_mb)"
        return RunFailedError("crash", "oom", reason)
    if used.disk_mb > allowed.disk_mb or used.files > MAX_FILES:
        reason = f"it wrote {used.disk_mb:.0f} MiB in {used.files} files; {allowed.disk_mb} MiB are allowed (sandbox.disk_mb)"
        return RunFailedError("crash", "killed", reason)
    return None
