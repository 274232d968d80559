"""The workspace: a git repository made from a task, and everything done to it with git.

Experiments are committed with a private index and moved by ref, so that nothing but the one editable file is ever written:
no `add -A`, no `clean`, no checkout of the user's tree. Each session has a linked worktree of its own below .autoresearch/.
"""

import os
import secrets
import shutil
import stat
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch_mcp.errors import TaskError, WorkspaceError
from autoresearch_mcp.files import locked, write_atomic
from autoresearch_mcp.task import TASK_FILE, Task, bundled_tasks, parse_task

if TYPE_CHECKING:
    import git

STATE = ".autoresearch"
PROGRAM = "program.md"
EXCLUDED = (f"/{STATE}/", "/results.tsv", "/progress.png", "__pycache__/")
# What another git process may have left in our environment would point our commands at its repository.
GIT_ENVIRONMENT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")


def _git() -> "type[git.Repo]":
    """GitPython's Repo, imported late: it costs a tenth of a second and fails at import where git is missing."""
    for name in GIT_ENVIRONMENT:
        os.environ.pop(name, None)
    if shutil.which("git") is None:
        raise WorkspaceError("git is not installed or not on PATH. Install it (Debian: `apt install git`) and try again.")
    import git

    return git.Repo


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


def pick_preset(task_text: str, preset: str) -> str | None:
    """The preset to pin: the one asked for; for auto, gpu where an NVIDIA device is present, else cpu, else the task's own."""
    import tomllib

    try:
        raw = tomllib.loads(task_text)
    except tomllib.TOMLDecodeError:
        return None  # parse_task says it better
    presets: dict[str, object] = raw.get("presets") or {}
    if preset != "auto":
        if preset not in presets:
            names = ", ".join(presets) or "none"
            raise TaskError(f"The task has no preset {preset!r} (it has: {names}). Choose one of those, or leave --preset out.")
        return preset
    if "gpu" in presets and Path("/dev/nvidiactl").exists():
        return "gpu"
    return "cpu" if "cpu" in presets else raw.get("preset")


def create(directory: Path, task_name: str = "default", preset: str = "auto") -> "Workspace":
    """Makes `directory` a workspace, whole or not at all. Raises WorkspaceError or TaskError, with nothing left behind."""
    repo_class = _git()
    directory = directory.expanduser().absolute()
    if (directory / STATE).exists() or ((directory / ".git").exists() and (directory / TASK_FILE).exists()):
        raise WorkspaceError(f"{directory} already is a workspace. Run: autoresearch-mcp serve --workspace {directory}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        what = "a git repository without a task" if (directory / ".git").exists() else "not empty"
        raise WorkspaceError(
            f"{directory} is {what}. Name a new or empty folder; or, to improve a file of your own repository, write an "
            f"{TASK_FILE} there, commit it, and run: autoresearch-mcp serve --workspace {directory}"
        )
    source = resolve_task(task_name)
    text = (source / TASK_FILE).read_text(encoding="utf-8")
    chosen = pick_preset(text, preset)
    if chosen is not None:
        import tomlkit

        document = tomlkit.parse(text)
        document["preset"] = chosen
        text = tomlkit.dumps(document)
    task = parse_task(text, str(source / TASK_FILE))

    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        building.chmod(0o755)
        names = [task.files.editable, *task.files.read_only, *task.data.sources]
        for name in names:
            if not (source / name).is_file():
                raise TaskError(f"{source / TASK_FILE} names {name}, which is not in {source}. Add the file or correct the name.")
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, building / name)
        (building / TASK_FILE).write_text(text, encoding="utf-8")
        if PROGRAM not in names:
            own = source / PROGRAM  # else the general one, which stands beside the default task
            shutil.copyfile(own if own.is_file() else bundled_tasks()["default"].parent / PROGRAM, building / PROGRAM)
        repo = repo_class.init(building, initial_branch="main")
        repo.git.add("--", *names, TASK_FILE, PROGRAM)
        with repo.git.custom_environment(**_identity(repo)):
            repo.git.commit("--no-verify", "--no-gpg-sign", "-q", "-m", f"Workspace of the task {task.name}")
        repo.close()
        if directory.exists():
            directory.rmdir()
        building.rename(directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Workspace(directory)


def _identity(repo: "git.Repo") -> dict[str, str]:
    """Author and committer for a git that has none configured; the user's own where there is one."""
    name, email = (
        os.environ.get(f"GIT_AUTHOR_{key.upper()}") or repo.git.config("--get", f"user.{key}", with_exceptions=False) or fallback
        for key, fallback in (("name", "autoresearch-mcp"), ("email", "autoresearch-mcp@localhost"))
    )
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }


class Workspace:
    """An open workspace. Raises WorkspaceError where the folder cannot be one."""

    def __init__(self, directory: Path):
        repo_class = _git()
        from git.exc import InvalidGitRepositoryError, NoSuchPathError

        self.root = directory.expanduser().absolute()
        try:
            self.repo = repo_class(self.root)
        except NoSuchPathError as error:
            raise WorkspaceError(f"{self.root} does not exist. Run: autoresearch-mcp init {self.root}") from error
        except InvalidGitRepositoryError as error:
            raise WorkspaceError(
                f"{self.root} is no git repository. Run `autoresearch-mcp init` on a new folder, or `git init` here, "
                f"write an {TASK_FILE}, and commit it."
            ) from error
        if self.repo.bare:
            raise WorkspaceError(f"{self.root} is a bare repository. Clone it and use the clone.")
        if not self.repo.head.is_valid():
            raise WorkspaceError(f"{self.root} has no commit yet. Commit the task's files, then try again.")
        self.state_dir = self.root / STATE
        self.runs_dir = self.state_dir / "runs"
        self.token_path = self.state_dir / "http-token"
        self.runs_dir.mkdir(parents=True, exist_ok=True)
        self.blob = lru_cache(maxsize=64)(self._read_blob)
        """Content of a file at a commit: blob(commit, path). Raises WorkspaceError where it is not there."""
        self._exclude()

    def bearer_token(self) -> str:
        """The token of HTTP clients, made on first use: 256 random bits, readable by the owner alone."""
        with locked(self.state_dir / "http-token.lock"):
            if not self.token_path.exists():
                write_atomic(self.token_path, secrets.token_urlsafe(32).encode("ascii"), 0o600)
            return self.token_path.read_text(encoding="ascii").strip()

    def _exclude(self) -> None:
        """Keeps our state out of the user's `git status` without touching a tracked file."""
        path = Path(self.repo.common_dir) / "info" / "exclude"
        path.parent.mkdir(parents=True, exist_ok=True)
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        missing = [line for line in EXCLUDED if line not in present.splitlines()]
        if missing:
            separator = "" if not present or present.endswith("\n") else "\n"
            write_atomic(path, (present + separator + "\n".join(missing) + "\n").encode())

    # --- reading ---

    def head(self) -> str:
        return self.repo.head.commit.hexsha

    def _read_blob(self, commit: str, path: str) -> bytes:
        try:
            return bytes(self.repo.commit(commit).tree.join(path).data_stream.read())  # pyright: ignore[reportUnknownArgumentType]
        except KeyError as error:
            raise WorkspaceError(
                f"{path} is not in commit {commit[:7]} of {self.root}. Commit it and start a new session."
            ) from error

    def task_at(self, commit: str) -> Task:
        task = parse_task(self.blob(commit, TASK_FILE).decode("utf-8", errors="replace"), TASK_FILE)
        for path in (task.files.editable, *task.files.read_only):
            self.blob(commit, path)
        entry = self.repo.commit(commit).tree.join(task.files.editable)
        if stat.S_ISLNK(entry.mode):
            raise WorkspaceError(f"{task.files.editable} is a symbolic link. Name the file itself in {TASK_FILE}.")
        return task

    def check_committed(self, task: Task) -> None:
        """Refuses to start a session while files of the task differ from the last commit: it would not use what one sees."""
        dirty = self.repo.git.status("--porcelain", "--", TASK_FILE, task.files.editable, *task.files.read_only)
        if dirty:
            names = ", ".join(sorted({line[3:] for line in dirty.splitlines()}))
            raise WorkspaceError(f"Uncommitted changes in {names}. Commit or stash them, then start the session.")

    def ref(self, name: str) -> str | None:
        found: str = self.repo.git.for_each_ref("--format=%(objectname)", name)
        return found.splitlines()[0] if found else None

    # --- writing ---

    def commit_file(self, parent: str, path: str, content: bytes, message: str) -> str:
        """Commits `parent` with one file changed; no branch, index or working tree is touched. Returns the commit."""
        with tempfile.TemporaryDirectory(prefix="index-", dir=self.state_dir) as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder) / "index"), **_identity(self.repo)}
            source = Path(folder) / "content"
            source.write_bytes(content)
            blob = self.repo.git.hash_object("-w", "--no-filters", "--", str(source))
            mode = f"{self.repo.commit(parent).tree.join(path).mode:o}"
            self.repo.git.read_tree(parent, env=env)
            self.repo.git.update_index("--cacheinfo", f"{mode},{blob},{path}", env=env)
            tree = self.repo.git.write_tree(env=env)
            return self.repo.git.commit_tree(tree, "-p", parent, "-m", message, env=env)

    def set_ref(self, name: str, commit: str) -> None:
        self.repo.git.update_ref(name, commit)

    def worktree(self, tag: str, branch: str) -> Path:
        """The session's linked worktree, made where it is missing."""
        path = self.state_dir / "worktrees" / tag
        if not (path / ".git").exists():
            self.repo.git.worktree("prune")
            shutil.rmtree(path, ignore_errors=True)
            self.repo.git.worktree("add", "-f", str(path), branch)
        return path

    def move_branch(self, branch: str, commit: str, worktree: Path) -> None:
        """Points the branch at a commit and the worktree's index with it; files stay as they are."""
        self.set_ref(f"refs/heads/{branch}", commit)
        _git()(worktree).git.read_tree(commit)
