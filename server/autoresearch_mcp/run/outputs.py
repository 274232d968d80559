"""Takes over what a run leaves for scoring: regular files and nothing else, copied out of its reach within bounds.

The run may still be alive, and its folder is its own: any part of a path can be a link, a pipe or another folder the moment after
it was looked at. So every part is opened relative to the one before it and never followed, and what was opened is what is judged.
The price is a copy of each output; its blocks are read and written once, whatever its size.
"""

import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from autoresearch_mcp.run.spec import RunSpec

BLOCK = 1 << 20
SPARSE = 1 << 20  # bytes that a file may be larger than its blocks on disk: some file systems count late


def take_over(folder: Path, name: str, target: Path, limit: int) -> None:
    """Copies the output `name` of the run's `folder` to `target`, which is ours. Raises OSError for one that is not a regular file
    of its own of at most `limit` bytes, is mostly holes, or changes meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with _parent(folder, name) as (parent, last):
        if stat.S_ISLNK(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
            raise OSError(f"{name} is a link")  # said better than the kernel would; the next line is what refuses one
        source = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        before = os.fstat(source)
        _check(name, source, before, limit)
        with open(target, "xb", buffering=0) as copy:
            left = before.st_size
            while left and (block := os.read(source, min(BLOCK, left))):
                copy.write(block)
                left -= len(block)
        after = os.fstat(source)
        if left or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise OSError(f"{name} changed while it was taken over: write it, close it, and only then submit or end")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(source)


def remove(folder: Path, name: str) -> None:
    """Removes an output, or whatever lies in its place; follows no link and misses nothing that is not there."""
    with suppress(OSError, RecursionError), _parent(folder, name) as (parent, last):
        try:
            os.unlink(last, dir_fd=parent)
        except (IsADirectoryError, PermissionError):  # Linux and macOS name a folder differently
            shutil.rmtree(last, ignore_errors=True, dir_fd=parent)


def remove_all(spec: RunSpec) -> None:
    """Removes what lies in both folders of a run only to be scored: scored and done with, a night of it would fill the disk."""
    for folder in (spec.work, spec.scoring):
        for name in (*spec.task.run.outputs, "tmp"):
            remove(folder, name)


def _check(name: str, descriptor: int, status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{name} is no regular file")
    if status.st_nlink > 1:
        raise OSError(f"{name} has {status.st_nlink} names (hard links); it must be a file of its own")
    if status.st_size > limit:
        raise OSError(f"{name} is larger than {limit} bytes (run.output_bytes)")
    held = status.st_blocks * 512
    if status.st_size > held + SPARSE and os.lseek(descriptor, 0, os.SEEK_HOLE) < status.st_size:
        raise OSError(f"{name} is sparse: {held} of its {status.st_size} bytes are on disk; write all of them")
    os.lseek(descriptor, 0, os.SEEK_SET)


@contextmanager
def _parent(folder: Path, name: str) -> Generator[tuple[int, str]]:
    """A descriptor of the folder that holds `name`, reached without following a link, and the last part of the name."""
    *folders, last = PurePosixPath(name).parts
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, flags)
    try:
        for part in folders:
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, last
    finally:
        os.close(descriptor)
