"""What git knows of many commits at once, for whoever examines a night; and its three-way merge."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autoresearch_mcp.objects import lines
from autoresearch_mcp.workspace import Workspace

BATCH = 500  # files read by one git process: 64 MB at most of the largest that a task allows by itself


def refs(workspace: Workspace, below: str) -> dict[str, str]:
    """Commits by ref."""
    found = str(workspace.run("for_each_ref", "--format=%(refname) %(objectname)", below)).split()
    return dict(zip(found[::2], found[1::2], strict=True))


def contents(workspace: Workspace, commits: Sequence[str], path: str) -> Iterator[bytes | None]:
    """A file at many commits, read by few processes; None where it is not there."""
    for start in range(0, len(commits), BATCH):
        with lines(workspace.state_dir, (f"{commit}:{path}" for commit in commits[start : start + BATCH])) as names:
            options: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False}
            rest: bytes = workspace.run("cat_file", "--batch", istream=names, **options)
        while rest:
            head, _, rest = rest.partition(b"\n")
            if head.endswith(b" missing"):
                yield None
                continue
            size = int(head.split()[-1])
            yield rest[:size]
            rest = rest[size + 1 :]


def changed_files(workspace: Workspace, old: str, new: str) -> list[str]:
    """Paths in which two commits differ."""
    return [path for path in str(workspace.run("diff", "--name-only", "--no-renames", "-z", old, new)).split("\0") if path]


def checked_out(workspace: Workspace, branch: str) -> str | None:
    """Where a branch is checked out; None where nowhere."""
    place = None
    for line in str(workspace.run("worktree", "list", "--porcelain")).splitlines():
        place = line.removeprefix("worktree ") if line.startswith("worktree ") else place
        if line == f"branch refs/heads/{branch}":
            return place
    return None


def merge(workspace: Workspace, ours: bytes, base: bytes, theirs: bytes) -> bytes | None:
    """`ours` with what makes `theirs` of `base`; None where that does not apply cleanly."""
    with tempfile.TemporaryDirectory(prefix="merge-", dir=workspace.state_dir) as folder:
        paths = [Path(folder) / name for name in ("ours", "base", "theirs")]
        for path, content in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(content)
        options: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False}
        code, merged, _ = workspace.run(
            "merge_file", "-p", *map(str, paths), with_exceptions=False, with_extended_output=True, **options
        )
    return merged if code == 0 else None
