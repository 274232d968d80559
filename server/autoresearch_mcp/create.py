"""A new workspace from a task: a folder with a git repository of one commit, made whole or not at all; other text for its data."""

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import cast

from autoresearch_mcp.errors import TaskError, WorkspaceError
from autoresearch_mcp.files import try_lock, write_atomic
from autoresearch_mcp.task import PROGRAM, TASK_FILE, Task, bundled_tasks, lacking, not_installed, parse_task, with_read_only
from autoresearch_mcp.workspace import STATE, Workspace, cause_of, identity, open_repository

PRIVATE = {".git", "__pycache__", STATE}  # folders whose files no folder or pattern of a task stands for
LOCK = ".autoresearch-making"  # held while a folder is filled; two at once would take out each other's files


def create(directory: Path, task_name: str = "default", preset: str | None = None) -> Workspace:
    """Makes `directory` a workspace, whole or not at all, with the task's own preset where none is named. Raises WorkspaceError or
    TaskError, with nothing left behind.
    """
    directory = directory.expanduser().absolute()
    _refuse_what_is_there(directory)
    source = resolve_task(task_name)
    text = (source / TASK_FILE).read_text(encoding="utf-8")
    if preset is not None:
        import tomlkit

        _require(preset, text)
        document = tomlkit.parse(text)
        document["preset"] = preset
        text = tomlkit.dumps(document)
    task = parse_task(text, str(source / TASK_FILE))
    if missing := not_installed(task):
        raise TaskError(lacking(missing))

    was_there = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = try_lock(directory / LOCK)
    except OSError as error:
        reason = error.strerror or error
        raise WorkspaceError(f"{directory} cannot be made: {reason}. Name a folder that you may write to.") from error
    if lock is None:
        raise WorkspaceError(f"Another process is making a workspace in {directory} right now. Wait for it, then use that one.")
    try:
        _refuse_what_is_there(directory)  # once more: somebody may have been faster
        _fill(directory, source, task, text)
    finally:
        (directory / LOCK).unlink(missing_ok=True)
        os.close(lock)
        if not was_there and not any(directory.iterdir()):
            directory.rmdir()
    return Workspace(directory)


def _fill(directory: Path, source: Path, task: Task, text: str) -> None:
    """Puts everything into the folder, or takes it all out again. Built inside: the folder may be a mount point."""
    open_repository()  # says so where there is no git; without it the next line fails
    from git.exc import GitError

    moved: list[Path] = []
    building: Path | None = None
    try:
        building = Path(tempfile.mkdtemp(prefix=".autoresearch-building-", dir=directory))
        _build(building, source, task, text)
        for path in sorted(building.iterdir(), key=lambda path: path.name == ".git"):  # .git last: until then it is no workspace
            path.rename(directory / path.name)
            moved.append(directory / path.name)
    except BaseException as error:
        for path in moved:  # ours alone; a `lost+found` is not
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if isinstance(error, OSError | GitError):
            raise WorkspaceError(
                f"{directory} cannot be filled: {cause_of(error)}. Free disk space or name another folder; nothing was left there."
            ) from error
        raise
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)


def _refuse_what_is_there(directory: Path) -> None:
    if (directory / STATE).exists() or ((directory / ".git").exists() and (directory / TASK_FILE).exists()):
        raise WorkspaceError(f"{directory} already is a workspace. Run: autoresearch-mcp serve --workspace {directory}")
    if directory.exists() and not is_free(directory):
        what = "a git repository without a task" if (directory / ".git").exists() else "not empty"
        raise WorkspaceError(
            f"{directory} is {what}. Name a new or empty folder; or, to improve a file of your own repository, write an "
            f"{TASK_FILE} there, commit it, and run: autoresearch-mcp serve --workspace {directory}"
        )


def is_free(directory: Path) -> bool:
    """Whether a workspace can be made there: nothing, or an empty folder (a new file system's `lost+found` counts as nothing)."""
    if not directory.exists():
        return True
    return directory.is_dir() and all(path.name in ("lost+found", LOCK) for path in directory.iterdir())


def _build(folder: Path, source: Path, task: Task, text: str) -> None:
    folder.chmod(0o755)
    task = with_read_only(task, files_in(source, task))
    names = [task.files.editable, *task.files.read_only, *task.data.sources]
    for name in names:
        if not (source / name).is_file():
            what = "is a folder: name its files" if (source / name).is_dir() else f"is not in {source}. Add it, or correct the name"
            raise TaskError(f"{source / TASK_FILE} names {name}, which {what}.")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    (folder / TASK_FILE).write_text(text, encoding="utf-8")
    if PROGRAM not in names:
        own = source / PROGRAM  # else the general one, which stands beside the default task
        shutil.copyfile(own if own.is_file() else bundled_tasks()["default"].parent / PROGRAM, folder / PROGRAM)
    repo = open_repository().init(folder, initial_branch="main")
    repo.git.add("--", *names, TASK_FILE, PROGRAM)
    with repo.git.custom_environment(**identity(repo)):
        repo.git.commit("--no-verify", "--no-gpg-sign", "-q", "-m", f"Workspace of the task {task.name}")
    repo.close()


@contextmanager
def text_of(workspace: Workspace, folder: Path) -> Generator[None]:
    """As `use_text`; where what follows fails, the workspace is as it was."""
    before = workspace.head()
    use_text(workspace, folder)
    ours = workspace.head()
    try:
        yield
    except BaseException:
        if ours != before and workspace.head() == ours:
            workspace.run("reset", "--soft", before)
            workspace.run("restore", f"--source={before}", "--staged", "--worktree", "--", TASK_FILE)
        raise


def use_text(workspace: Workspace, folder: Path) -> None:
    """From the next session on the data is made from the documents in `folder`: the task says so, in a commit of its own. Raises
    WorkspaceError or TaskError, with nothing changed.
    """
    import tomlkit

    folder, path = folder.expanduser().absolute(), workspace.root / TASK_FILE
    if not folder.is_dir():
        raise WorkspaceError(f"{folder} is no folder. Name one with .txt, .md, .jsonl or .parquet files.")
    head = workspace.head()
    if workspace.uncommitted(TASK_FILE):
        raise WorkspaceError(f"{path} has changes that are not committed. Commit or undo them, then run this again.")
    text = workspace.blob(head, TASK_FILE).decode()
    task = parse_task(text, str(path))
    if task.data.prepare is None:
        raise TaskError(
            f"The task {task.name} makes no data: it has no [data] prepare. Write a command there that reads AUTORESEARCH_TEXT."
        )
    if task.data.text == str(folder):
        return
    line = f"text = {tomlkit.string(str(folder)).as_string()}"
    if task.data.text is None:
        changed = re.sub(r"^\[data\].*$", lambda header: f"{header[0]}\n{line}", text, count=1, flags=re.MULTILINE)
    else:
        changed = re.sub(r"^text\s*=.*$", lambda _: line, text, count=1, flags=re.MULTILINE)
    if parse_task(changed, str(path)).data.text != str(folder):
        raise TaskError(
            f"{path} is written in a way that cannot be changed here. Under [data] write {line}, commit that, then run prepare."
        )
    write_atomic(path, changed.encode())
    try:
        with workspace.repo.git.custom_environment(**identity(workspace.repo)):
            workspace.run("commit", "--only", "--no-verify", "--no-gpg-sign", "-q", "-m", f"Data from {folder}", "--", TASK_FILE)
    except WorkspaceError:
        write_atomic(path, text.encode())
        raise


def files_in(source: Path, task: Task) -> dict[str, list[str]]:
    """By folder or pattern of files.read_only: the files below `source` that it stands for, no links."""
    found: dict[str, list[str]] = {}
    for pattern in task.files.read_only:
        if (source / pattern).is_file():
            continue
        whole = pattern + "/*" if pattern.endswith("**") else pattern  # else folders alone, before Python 3.13
        paths = (source / pattern).rglob("*") if (source / pattern).is_dir() else source.glob(whole)
        files = [path.relative_to(source) for path in paths if path.is_file() and not path.is_symlink()]
        found[pattern] = sorted(str(PurePosixPath(path)) for path in files if not PRIVATE & {*path.parts})
    return found


def resolve_task(name: str) -> Path:
    """Folder of a task given by the name of a bundled one or by path."""
    bundled = bundled_tasks()
    if name in bundled:
        return bundled[name]
    folder = Path(name).expanduser()
    if folder.name == TASK_FILE:
        folder = folder.parent
    if (folder / TASK_FILE).is_file():
        return folder.resolve()
    names = ", ".join(sorted(bundled)) or "none"
    raise TaskError(f"There is no task {name!r}: no bundled one of that name ({names}) and no {TASK_FILE} in {folder}. Name one.")


def presets_of(task_name: str) -> list[str]:
    """The names of a task's presets. Raises TaskError where there is no such task."""
    return _presets_in((resolve_task(task_name) / TASK_FILE).read_text(encoding="utf-8"))


def _presets_in(text: str) -> list[str]:
    try:
        presets: object = tomllib.loads(text).get("presets")
    except tomllib.TOMLDecodeError:
        return []  # parse_task says it better
    return [str(name) for name in cast("dict[object, object]", presets)] if isinstance(presets, dict) else []


def _require(preset: str, text: str) -> None:
    if preset not in (presets := _presets_in(text)):
        names = ", ".join(presets) or "none"
        raise TaskError(f"The task has no preset {preset!r} (it has: {names}). Choose one of those, or leave --preset out.")
