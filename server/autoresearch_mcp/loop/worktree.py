"""The session's own copy of the files: the editable one, read and written here and nowhere else, and the read-only ones beside it.

Whatever stands in the way of the editable file (a folder of that name, a link instead of a folder above it) is set aside under
another name, never removed: it may be somebody's. A missing file is no edit; it reads as what should be there.
"""

import errno
import time
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import read_regular, sha256, write_atomic
from autoresearch_mcp.loop.patches import MAX_BYTES


@dataclass(frozen=True)
class FileText:
    text: str
    revision: str
    """The first digits of its SHA-256."""

    @classmethod
    def of(cls, content: bytes) -> "FileText":
        return cls(content.decode("utf-8"), sha256(content)[:12])


class Worktree:
    def __init__(self, root: Path, editable: str):
        """`root`: the session's linked worktree; `editable`: the path of the file in it."""
        self.root, self._editable = root, editable

    @property
    def path(self) -> Path:
        """The editable file."""
        return self.root / self._editable

    def read(self) -> bytes | None:
        """Content of the editable file; None where there is none. Raises WorkspaceError for no regular file or too large a one."""
        try:
            return read_regular(self.path, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or error
            raise WorkspaceError(
                f"{self.path} cannot be read: {reason}. Call discard to put the best experiment's file there; "
                "what is there now is set aside."
            ) from error

    def text(self, missing: bytes) -> FileText:
        """The editable file as it is, `missing` where there is none. Raises WorkspaceError where it is no UTF-8 text file."""
        content = self.read()
        try:
            return FileText.of(missing if content is None else content)
        except UnicodeDecodeError as error:
            raise WorkspaceError(
                f"{self.path} is not UTF-8 text (byte {error.start}). Call discard to put the best experiment's file there; "
                "what is there now is set aside."
            ) from error

    def look(self, missing: bytes) -> tuple[str, bool]:
        """The same for whoever only compares or shows, and whether it is text that an agent can read and change: never raises."""
        try:
            content = self.read()
        except WorkspaceError:
            return "", False
        content = missing if content is None else content
        try:
            return content.decode("utf-8"), True
        except UnicodeDecodeError:
            return content.decode("utf-8", errors="replace"), False

    def write(self, content: bytes) -> str:
        """Replaces the editable file, whole or not at all. Returns a note on what was set aside for it, else an empty one."""
        return self._put(self._editable, content)

    def restore(self, files: dict[str, bytes]) -> list[str]:
        """Puts these files back where they are missing or changed; returns the names of those that were."""
        changed: list[str] = []
        for name, content in files.items():
            path = self.root / name
            if path.is_symlink() or not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
                self._put(name, content)
                changed.append(name)
        return changed

    def _put(self, name: str, content: bytes) -> str:
        aside = self._clear_the_way(name)
        path = self.root / name
        if not aside and name == self._editable and not self.look(b"")[1]:
            aside = _set_aside(path, "no text file that could be read")
        mode = path.lstat().st_mode & 0o777 if path.is_file() and not path.is_symlink() else 0o644
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, mode)
        return aside

    def _clear_the_way(self, name: str) -> str:
        """Renames what would have the file written elsewhere or not at all: the first thing above it that is no real folder, or a
        folder in its place."""
        parts = Path(name).parts
        for depth in range(1, len(parts) + 1):
            path = self.root.joinpath(*parts[:depth])
            if not path.is_symlink() and not path.exists():
                break
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder == (depth < len(parts)):
                continue
            return _set_aside(path, f"no {'folder' if depth < len(parts) else 'file'}")
        return ""


def _set_aside(path: Path, was: str) -> str:
    aside = path.with_name(f"{path.name}.set-aside-{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(2)}")
    path.rename(aside)
    return f"{path} was {was}; it was set aside as {aside.name}"
