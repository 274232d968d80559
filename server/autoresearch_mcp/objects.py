"""Commits of one file, many at once, written as objects: a handful of git processes however many there are, and no index, branch or
working tree is touched.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FOLDER = "commits-"  # how the names of the folders begin in which they are written
LEFT = 3600.0  # seconds after which such a folder is a dead process's
PLAIN = b"100644"  # the mode of a file that is new

Git = Callable[..., Any]
"""Runs a command of git, as `Workspace.run` does. Raises WorkspaceError."""


def for_git(folder: Path, content: bytes) -> IO[bytes]:
    """A file to be read by git, on the disk of a folder; the caller's `with` closes it."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def lines(folder: Path, said: Iterable[object]) -> IO[bytes]:
    return for_git(folder, "".join(f"{line}\n" for line in said).encode(errors="surrogateescape"))


def make_commits(
    git: Git, state: Path, who: Mapping[str, str], parent: str, path: str, contents: Sequence[tuple[bytes, str]]
) -> list[str]:
    """A commit on `parent` for each content of the file at `path`, with its message. `state`: our folder in the workspace; `who`:
    the environment that names author and committer. Raises WorkspaceError, OSError.
    """
    _sweep(state)
    *above, name = path.split("/")
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=state) as made:
        folder = Path(made)
        objects = _objects(git, folder, "blob", [content for content, _ in contents])
        kind = b"blob"
        while True:
            objects = _trees(git, folder, f"{parent}:{'/'.join(above)}", name, kind, objects)
            if not above:
                break
            name, kind = above.pop(), b"tree"
        author, committer = (git("var", f"GIT_{role}_IDENT", env=who) for role in ("AUTHOR", "COMMITTER"))
        head = f"parent {parent}\nauthor {author}\ncommitter {committer}\n"
        said = [message.replace("\0", "").removesuffix("\n") for _, message in contents]
        texts = [
            f"tree {tree}\n{head}\n" + (f"{message}\n" if message else "") for tree, message in zip(objects, said, strict=True)
        ]
        return _objects(git, folder, "commit", [text.encode(errors="surrogateescape") for text in texts])


def _objects(git: Git, folder: Path, kind: str, contents: Sequence[bytes]) -> list[str]:
    sources = [folder / f"{kind}{number}" for number in range(len(contents))]
    for source, content in zip(sources, contents, strict=True):
        source.write_bytes(content)
    root = folder.parent.parent  # where git is; the whole path may have a line end
    with lines(folder, (source.relative_to(root) for source in sources)) as names:
        return str(git("hash_object", "-t", kind, "-w", "--no-filters", "--stdin-paths", istream=names)).split()


def _trees(git: Git, folder: Path, tree: str, name: str, kind: bytes, objects: Sequence[str]) -> list[str]:
    """Of each object the tree that has it under a name, and else what `tree` has."""
    listed: bytes = git("ls_tree", "-z", tree, stdout_as_string=False, strip_newline_in_stdout=False)
    entries = [entry for entry in listed.split(b"\0") if entry]
    wanted = name.encode(errors="surrogateescape")
    others = [entry for entry in entries if entry.partition(b"\t")[2] != wanted]
    same = [entry.split(b" ", 1)[0] for entry in entries if entry.partition(b"\t")[2] == wanted]
    mode = same[0] if same else PLAIN
    rows = ([*others, b"%s %s %s\t%s" % (mode, kind, hashed.encode(), wanted)] for hashed in objects)
    said = b"\0".join(b"\0".join(row) + b"\0" for row in rows) + b"\0"
    with for_git(folder, said) as made:
        return str(git("mktree", "-z", "--batch", istream=made)).split()


def _sweep(state: Path) -> None:
    for old in state.glob(f"{FOLDER}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > LEFT:
                shutil.rmtree(old, ignore_errors=True)
