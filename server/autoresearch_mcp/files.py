"""Files on disk, read and written so that a death at any moment and a hostile neighbour do no harm. Locks between processes."""

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoresearch_mcp.errors import WorkspaceError


def write_atomic(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replaces a file so that a reader, or a death at any moment, sees the old content or the new, never a part."""
    descriptor, temporary = tempfile.mkstemp(prefix=".autoresearch-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content).encode())


def read_json(path: Path) -> Any:
    """Content of a JSON file that we wrote; None where it is missing or unreadable."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_regular(path: Path, limit: int) -> bytes:
    """Content of a regular file of at most `limit` bytes. Raises OSError for links, pipes, devices and larger files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path.name} is no regular file")
        if status.st_size > limit:
            raise OSError(f"{path.name} is larger than {limit} bytes")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Takes an exclusive lock on the file and returns its descriptor, or None while somebody else holds it.

    The lock belongs to the open file: a child that inherits the descriptor holds it on, and it ends with its last holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    descriptor = try_lock(path) if path.exists() else None
    if descriptor is None:
        return path.exists()
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, timeout: float = 30.0) -> Generator[None]:
    """Holds the lock; waits for it up to `timeout` seconds, then raises WorkspaceError."""
    deadline = time.monotonic() + timeout
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise WorkspaceError(f"Another server has held {path.name} for {timeout:.0f} s. Try again in a moment.")
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
