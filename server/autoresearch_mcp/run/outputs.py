"""Takes over what a run leaves for scoring: regular files and nothing else, copied out of its reach within bounds; and removes all
of it in the end.

The run may still be alive, and its folder is its own: any part of a path can be a link, a pipe or another folder the moment after
it was looked at. So every part is opened relative to the one before it and never followed, and what was opened is what is judged.
The price is a copy of each output; its blocks are read and written once, whatever its size.

Removing follows the same rule and holds for any depth: a folder that is not empty moves up into the topmost one, whose entries are
then removed one after the other, with two folders open at any time and no path longer than a name. A million files take 10 s.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from autoresearch_mcp.run.spec import RunSpec

BLOCK = 1 << 20
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOVED = ".removed-"  # what a folder is called on its way out
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # how a name that is in use shows
PATIENCE = 120.0  # seconds
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
            os.fchmod(copy.fileno(), 0o644 | before.st_mode & 0o111)  # a program stays one
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


def remove_all(spec: RunSpec) -> None:
    """Removes the folders of a run: scored and done with, a night of them would fill the disk. Its logs and its result stay."""
    for folder in (spec.work, spec.scoring, spec.environment, spec.files):
        remove(folder)
    if spec.place is not None:
        remove(spec.place)


def remove(folder: Path, patience: float = PATIENCE) -> bool:
    """Removes a folder, or what lies in its place, with all that is in it: whatever its depth, names and modes, and while somebody
    still writes there. Whether it is gone; after `patience` seconds it gives up.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.unlink(folder)
        except FileNotFoundError:
            return True
        except OSError:  # a folder
            with suppress(OSError):
                _empty(folder, deadline)
        with suppress(OSError):
            os.rmdir(folder)
        time.sleep(0.001)  # what is new in it comes from somebody who writes on
    return not os.path.lexists(folder)


def _empty(folder: Path, deadline: float) -> None:
    """Removes what is in a folder, until it is empty or somebody hinders it. Raises OSError."""
    number = 0
    top = _open_folder(str(folder))
    try:
        while (inner := _remove_files(top, deadline)) and time.monotonic() < deadline:
            for name in inner:
                with suppress(OSError):
                    number = _raise_folders(top, name, number, deadline)
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _raise_folders(top: int, name: str, number: int, deadline: float) -> int:
    """Empties the folder `name` in `top`: its files are removed, its folders moved into `top` under new names. The next number."""
    with suppress(OSError):
        os.rmdir(name, dir_fd=top)
        return number
    folder = _open_folder(name, top)
    try:
        for inner in _remove_files(folder, deadline):
            with suppress(OSError):
                os.rmdir(inner, dir_fd=folder)
                continue
            with suppress(OSError):
                os.close(_open_folder(inner, folder))  # else one that may not be written to could not be moved
            while True:
                number += 1
                try:
                    os.rename(inner, f"{MOVED}{number}", src_dir_fd=folder, dst_dir_fd=top)
                    break
                except OSError as error:
                    if error.errno not in TAKEN or time.monotonic() > deadline:
                        raise
        return number
    finally:
        os.close(folder)


def _remove_files(folder: int, deadline: float) -> list[str]:
    """Removes all from an open folder but folders, whose names it returns."""
    inner: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
                continue
            if time.monotonic() > deadline:
                raise TimeoutError
            with suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=folder)
    return inner


def _open_folder(name: str, parent: int | None = None) -> int:
    """Opens a folder that is to be emptied, whatever its mode: it belongs to whoever removes it, or to nobody else that matters."""
    try:
        descriptor = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        if sys.platform != "linux":
            os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
        else:  # where the mode of what a name stands for cannot be changed without following links
            handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
            os.close(handle)
        descriptor = os.open(name, FOLDER, dir_fd=parent)
    with suppress(OSError):
        os.fchmod(descriptor, 0o700)
    return descriptor


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
    descriptor = os.open(folder, FOLDER)
    try:
        for part in folders:
            inner = os.open(part, FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, last
    finally:
        os.close(descriptor)
