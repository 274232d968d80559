"""Files on disk, read and written so that a death at any moment and a hostile neighbour do no harm. Locks between processes."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from autoresearch_mcp.errors import WorkspaceError


def write_atomic(path: Path, content: bytes, mode: int = 0o644, lasting: bool = True) -> None:
    """Replaces a file so that a reader, or a death at any moment, sees the old content or the new, never a part. What is not to be
    `lasting` may be lost when the machine goes down.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".autoresearch-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if lasting:
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


def is_locked(path: Path | str) -> bool:
    """Whether somebody holds the lock, which is taken for the moment of the question. Raises OSError where it may not be opened."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


_held: dict[tuple[str, int], str] = {}
"""By lock file and thread: the step that holds it. A second try from within would wait for itself."""


@contextmanager
def locked(path: Path, step: str = "", timeout: float = 30.0) -> Generator[None]:
    """Holds the lock; waits for it up to `timeout` seconds, then raises WorkspaceError, which says who holds it.

    `step` is what for; it stands in the lock file with the holder's number and the time, for whoever waits in vain.
    """
    key = (str(path), threading.get_ident())
    if key in _held:
        raise RuntimeError(f"{path.name} is held by this very thread, for {_held[key] or 'a step'}; {step or 'a step'} asked again")
    deadline = time.monotonic() + timeout
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise WorkspaceError(
                f"{path.name} has been held for {timeout:.0f} s by {_holder(path)}. "
                "Try again in a moment; if that process hangs, end it."
            )
        time.sleep(0.01)
    try:
        _held[key] = step
        holder = {"program": Path(sys.argv[0]).name, "pid": os.getpid(), "step": step, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # a full disk: then nobody is told, and the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        _held.pop(key, None)
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Who wrote itself into a lock file, in words."""
    holder = read_json(path)
    if not isinstance(holder, dict):
        return "another process"
    found = cast("dict[str, object]", holder)
    step = f", step {found['step']}" if found.get("step") else ""
    return f"{found.get('program', 'a process')} (pid {found.get('pid')}{step}, since {found.get('since')})"


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made_secret(path: Path) -> str:
    """What the file holds, made on first use: 256 random bits, readable by its owner alone."""
    with locked(path.with_name(f"{path.name}.lock"), "make a secret"):
        if (known := known_secret(path)) is None:
            known = secrets.token_urlsafe(32)
            write_atomic(path, known.encode("ascii"), 0o600)
        return known


def known_secret(path: Path) -> str | None:
    return path.read_text(encoding="ascii").strip() if path.exists() else None
