import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.errors import AutoresearchError, TaskError, WorkspaceError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.workspace import Workspace
from conftest import TOY, git, open_session, replace, run


def test_create_makes_a_repository_with_one_commit_and_a_clean_tree(tmp_path: Path):
    workspace = create(tmp_path / "w", "notes")
    assert git(workspace.root, "log", "--format=%an %s").endswith("Workspace of the task notes")
    assert git(workspace.root, "status", "--porcelain") == ""
    assert set(git(workspace.root, "ls-files").split()) == {
        "autoresearch.toml",
        "notes.md",
        "outline.txt",
        "program.md",
        "score.py",
    }


def test_the_preset_is_pinned(tmp_path: Path):
    workspace = create(tmp_path / "w", "default", "tiny")
    assert workspace.task_at(workspace.head()).preset == "tiny"
    assert "# The default task" in (workspace.root / "autoresearch.toml").read_text()


def test_create_takes_an_empty_folder_and_leaves_nothing_behind_when_it_fails(tmp_path: Path, task_folder: Callable[..., Path]):
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty", "notes").root == tmp_path / "empty"
    with pytest.raises(TaskError, match="missing.py"):
        create(tmp_path / "w", str(task_folder(TOY.replace('"score.py"]', '"score.py", "missing.py"]'))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "task"]


@pytest.mark.parametrize("kind", ["files", "repository", "workspace", "file"])
def test_create_refuses_what_is_not_empty_and_names_the_next_step(tmp_path: Path, kind: str):
    folder = tmp_path / "w"
    if kind == "file":
        folder.write_text("precious")
    elif kind == "workspace":
        create(folder, "notes")
    else:
        folder.mkdir()
        (folder / "precious.txt").write_text("precious")
        if kind == "repository":
            git(folder, "init", "-q")
    before = sorted(folder.rglob("*")) if folder.is_dir() else []
    with pytest.raises(WorkspaceError, match="autoresearch"):
        create(folder, "notes")
    assert (sorted(folder.rglob("*")) if folder.is_dir() else []) == before


def test_unknown_tasks_and_presets_list_what_there_is(tmp_path: Path):
    with pytest.raises(TaskError, match="default, .*notes"):
        create(tmp_path / "w", "nonsense")
    with pytest.raises(TaskError, match="tiny, cpu, cpu-8, gpu"):
        create(tmp_path / "w", "default", "huge")
    with pytest.raises(TaskError, match="has no preset 'tiny'"):
        create(tmp_path / "w", "notes", "tiny")


def test_a_missing_git_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkspaceError, match="git is not installed"):
        create(tmp_path / "w", "notes")


@pytest.mark.slow
def test_commits_work_without_a_configured_user_and_use_a_configured_one(tmp_path: Path, notes: Session):
    run(notes)
    assert git(notes.workspace.root, "log", "-1", "--format=%an <%ae>", "refs/autoresearch/experiments/1") == (
        "autoresearch-mcp <autoresearch-mcp@localhost>"
    )
    git(notes.workspace.root, "config", "user.name", "Ada")
    git(notes.workspace.root, "config", "user.email", "ada@example.org")
    notes.keep()
    replace(notes, "budget metric\n")
    run(notes)
    assert (
        git(notes.workspace.root, "log", "-1", "--format=%an <%ae>", "refs/autoresearch/experiments/2") == "Ada <ada@example.org>"
    )


@pytest.mark.parametrize("state", ["missing", "plain", "bare", "no commit", "no task"])
def test_a_folder_that_is_no_workspace_is_refused_with_the_next_step(tmp_path: Path, state: str):
    folder = tmp_path / "w"
    if state != "missing":
        folder.mkdir()
    if state in ("bare", "no commit", "no task"):
        git(folder, "init", "-q", *(["--bare"] if state == "bare" else []))
    if state == "no task":
        git(folder, "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(AutoresearchError, match="[Rr]un|[Cc]ommit|[Cc]lone"):
        open_session(folder)


def own_repository(folder: Path) -> Path:
    """A user's own repository with a task in it, and files that are none of our business."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "autoresearch.toml").write_text(TOY.replace('"work.py"', '"src/work.py"').replace('"work.py"]', '"src/work.py"]'))
    (folder / "src").mkdir()
    (folder / "src" / "work.py").write_text("open('result.txt', 'w').write('1.0')\n")
    (folder / "score.py").write_text("print(open('result.txt').read())\n")
    (folder / "program.md").write_text("go\n")
    (folder / "tracked.txt").write_text("committed\n")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-m", "mine")
    (folder / "tracked.txt").write_text("edited and not committed\n")
    (folder / "untracked.txt").write_text("precious\n")
    (folder / "staged.txt").write_text("staged\n")
    git(folder, "add", "staged.txt")
    return folder


@pytest.mark.slow
def test_a_users_own_repository_is_adopted_and_nothing_else_in_it_changes(tmp_path: Path):
    folder = own_repository(tmp_path / "repo")
    before = git(folder, "status", "--porcelain"), git(folder, "rev-parse", "HEAD"), git(folder, "branch", "--show-current")
    session = open_session(folder)
    toml = session.task
    assert toml.files.editable == "src/work.py"
    run(session, "baseline")
    session.keep()
    session.apply_patch("@@ -1 +1 @@\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('2.0')\n")
    run(session, "more")
    session.keep()
    session.apply_patch("@@ -1 +1 @@\n-open('result.txt', 'w').write('2.0')\n+open('result.txt', 'w').write('0.0')\n")
    run(session, "less")
    session.discard()
    assert (
        git(folder, "status", "--porcelain"),
        git(folder, "rev-parse", "HEAD"),
        git(folder, "branch", "--show-current"),
    ) == before
    assert (folder / "untracked.txt").read_text() == "precious\n"
    assert (folder / "tracked.txt").read_text() == "edited and not committed\n"
    branch = session.state.started.branch
    assert git(folder, "diff", "--name-only", f"trunk..{branch}") == "src/work.py"
    assert git(folder, "log", "--format=%s", f"trunk..{branch}").split("\n") == ["more", "baseline"]


def test_a_detached_head_is_a_fine_start(tmp_path: Path):
    folder = own_repository(tmp_path / "repo")
    git(folder, "checkout", "-q", "--detach")
    assert open_session(folder).position().phase == "baseline"


def test_uncommitted_changes_of_the_tasks_own_files_are_refused(tmp_path: Path):
    folder = own_repository(tmp_path / "repo")
    (folder / "score.py").write_text("print(99)\n")
    with pytest.raises(WorkspaceError, match=r"Uncommitted changes in score\.py"):
        open_session(folder)
    git(folder, "checkout", "-q", "score.py")
    assert open_session(folder).tag


def test_hooks_and_signing_of_the_user_do_not_run(tmp_path: Path, notes: Session):
    root = notes.workspace.root
    for name in ("pre-commit", "post-commit", "reference-transaction"):
        hook = root / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/{name}-ran\n")
        hook.chmod(0o755)
    git(root, "config", "commit.gpgsign", "true")
    run(notes)
    notes.keep()
    assert not list(tmp_path.glob("pre-commit-ran")) and not list(tmp_path.glob("post-commit-ran"))


@pytest.mark.slow
def test_the_files_mode_survives(tmp_path: Path):
    folder = own_repository(tmp_path / "repo")
    (folder / "src" / "work.py").chmod(0o755)
    git(folder, "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-am", "mode")
    session = open_session(folder)
    run(session)
    session.keep()
    session.apply_patch("@@ -1 +1 @@\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('2.0')\n")
    run(session)
    assert git(folder, "ls-tree", "refs/autoresearch/experiments/2", "src/work.py").startswith("100755")
    assert session.worktree.path.stat().st_mode & stat.S_IXUSR


def test_a_symbolic_link_as_editable_file_is_refused(tmp_path: Path):
    folder = own_repository(tmp_path / "repo")
    (folder / "src" / "work.py").unlink()
    os.symlink("../tracked.txt", folder / "src" / "work.py")
    git(folder, "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-am", "link")
    with pytest.raises(WorkspaceError, match="symbolic link"):
        open_session(folder)


@pytest.mark.slow
def test_sessions_side_by_side(notes: Session):
    other = open_session(notes.workspace.root, "other")
    run(notes)
    notes.keep()
    run(other)
    other.keep()
    assert notes.worktree.path != other.worktree.path
    assert [e.number for e in notes.state.experiments] == [1] and [e.number for e in other.state.experiments] == [2]
    for name in ("../escape", "long" * 10_000):
        with pytest.raises(WorkspaceError, match="no session name") as refused:
            open_session(notes.workspace.root, name)
        assert len(str(refused.value)) < 300


def test_a_branch_that_somebody_moved_is_not_overwritten(notes: Session):
    root, branch = notes.workspace.root, notes.state.started.branch
    tree = git(root, "write-tree")
    foreign = git(root, "-c", "user.name=a", "-c", "user.email=b", "commit-tree", tree, "-m", "mine")
    git(root, "update-ref", f"refs/heads/{branch}", foreign)
    with pytest.raises(WorkspaceError, match="which this session did not make") as refused:
        open_session(root)
    assert git(root, "rev-parse", branch) == foreign
    _, advice = str(refused.value).split("put it back: git ")
    git(root, *advice.split())  # `git branch -f` would not: the branch is checked out in the session's worktree
    assert open_session(root).state.head_commit == git(root, "rev-parse", branch)


def test_a_deleted_worktree_comes_back(notes: Session):
    import shutil

    shutil.rmtree(notes.worktree.root)
    assert open_session(notes.workspace.root).read().text == notes.text_at(notes.state.head_commit)


def test_the_environment_of_an_outer_git_does_not_mislead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert Workspace(create(tmp_path / "w", "notes").root).head()


def test_making_one_that_fails_takes_out_only_what_it_put_in(tmp_path: Path, task_folder: Callable[..., Path]):
    (tmp_path / "w" / "lost+found").mkdir(parents=True)
    (tmp_path / "w" / "lost+found" / "x").write_text("precious")
    with pytest.raises(TaskError, match=r"missing\.py"):
        create(tmp_path / "w", str(task_folder(TOY.replace('"score.py"]', '"score.py", "missing.py"]'))))
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["lost+found"]
    assert (tmp_path / "w" / "lost+found" / "x").read_text() == "precious"
    assert create(tmp_path / "w", "notes").root == tmp_path / "w"


def test_of_several_that_make_one_at_once_one_is_left_whole(tmp_path: Path):
    (tmp_path / "w").mkdir()
    code = "import sys; from pathlib import Path; from autoresearch_mcp.create import create; create(Path(sys.argv[1]), 'notes')"
    makers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "w")], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sorted(maker.wait() for maker in makers)[0] == 0
    assert git(tmp_path / "w", "status", "--porcelain") == ""
    assert open_session(tmp_path / "w").position().phase == "baseline"


def test_a_git_that_fails_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hook = tmp_path / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\necho 'fatal: no room' >&2\nexit 1\n")
    hook.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(f"[core]\n\thooksPath = {hook.parent}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    with pytest.raises(WorkspaceError, match="cannot be filled: .*nothing was left there"):
        create(tmp_path / "w", "notes")
    assert not (tmp_path / "w").exists()


def test_looking_at_a_repository_that_is_no_workspace_leaves_it_alone(tmp_path: Path):
    git(tmp_path, "init", "-q", "repo")
    git(tmp_path / "repo", "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(WorkspaceError, match=r"has no autoresearch\.toml"):
        Workspace(tmp_path / "repo")
    assert not (tmp_path / "repo" / ".autoresearch").exists()


def test_a_damaged_repository_is_not_called_empty(notes: Session):
    (notes.workspace.common / "refs" / "heads" / "main").write_text("garbage\n")
    with pytest.raises(WorkspaceError, match="git cannot read"):
        Workspace(notes.workspace.root)
