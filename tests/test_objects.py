"""Commits of one file, written as objects."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.workspace import Workspace, identity

CONTENTS = [(b"\xff\0\r\n", "first"), (b"", "zwei \u00fc\n\nmore  "), (b"x\r\n" * 1000, "  third\n"), (b"same", "")]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """With a file deep down, at a place with a name that git quotes."""
    made = create(tmp_path / "line\nend \u00fc", "notes")
    deep = made.root / "sub dir" / 'd"\u00e9' / "x y.md"
    deep.parent.mkdir(parents=True)
    deep.write_text("before")
    deep.chmod(0o755)
    made.run("add", "-A")
    made.run("commit", "-qm", "deep", env=identity(made.repo))
    return Workspace(made.root)


def by_index(workspace: Workspace, path: str, content: bytes, message: str) -> str:
    """The same commit as git makes it with an index."""

    def git(*arguments: str, given: bytes = b"") -> str:
        environment = os.environ | identity(workspace.repo) | {"GIT_INDEX_FILE": str(workspace.state_dir / "index")}
        command = ["git", "-C", str(workspace.root), *arguments]
        return subprocess.run(command, input=given, env=environment, capture_output=True, check=True).stdout.decode().strip()

    git("read-tree", "HEAD")
    mode = git("ls-tree", "HEAD", "--", path).partition(" ")[0]
    git("update-index", "--cacheinfo", f"{mode},{git('hash-object', '-w', '--no-filters', '--stdin', given=content)},{path}")
    return git("commit-tree", git("write-tree"), "-p", "HEAD", "-m", message)


@pytest.mark.parametrize("path", ["notes.md", 'sub dir/d"\u00e9/x y.md'])
def test_they_are_those_that_git_makes(workspace: Workspace, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_AUTHOR_DATE", "1700000000 +0100")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1700000100 -0200")
    made = workspace.commit_files(workspace.head(), path, CONTENTS)
    assert made == [by_index(workspace, path, content, message) for content, message in CONTENTS]
    workspace.run("fsck", "--strict")


def test_what_a_dead_process_left_goes_with_the_next_and_what_is_new_stays(workspace: Workspace):
    old, new = (workspace.state_dir / f"commits-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "blob0").write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)
    workspace.commit_file(workspace.head(), "notes.md", b"", "again")
    assert [path.name for path in workspace.state_dir.glob("commits-*")] == ["commits-new"]
