"""The workspace: a git repository with a task, and everything done to it with git. Making one is in create.py.

Experiments are committed with a private index and moved by ref, so that nothing but the one editable file is ever written: no
`add -A`, no `clean`, no checkout of the user's tree. Each session has a linked worktree of its own below .autoresearch/.

What a crash or a move leaves behind is healed: links between repository and worktree that name an old place are written anew, a
lost worktree entry is made again around the files that are there, a stale lock of git's in our own part of the repository is
removed after STALE seconds. In the user's part of it nothing is; there the message says what to run.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import known_secret, made_secret, sha256, write_atomic
from autoresearch_mcp.objects import lines, make_commits
from autoresearch_mcp.task import PROGRAM, TASK_FILE, Task, parse_task, with_read_only

if TYPE_CHECKING:
    import git

STATE = ".autoresearch"
PICTURES = ("/progress.png", "/curves.png", "/card.png", "/report/")
EXPORTS = ("/results.tsv", "/experiments-*.csv", "/experiments-*.json", "/mlflow.db", "/mlartifacts/", "/wandb/", "/tensorboard/")
EXCLUDED = (f"/{STATE}/", *EXPORTS, *PICTURES, "__pycache__/")
EXPERIMENTS = "refs/autoresearch/experiments"
STALE = 5.0  # seconds after which a lock of git's in our part is nobody's: our commands take milliseconds, under a lock of our own
LOCKS = 100  # that one git command may have left when the machine went down
# What another git process may have left in our environment would point our commands at its repository.
LINK = "120000"  # the mode of a symbolic link
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git knows it without being told
GIT_ENVIRONMENT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
_LOCK_EXISTS = re.compile(r"Unable to create '(?P<lock>[^']+\.lock)': File exists")
# A worktree holds the bytes of the commits: revisions are hashes of them, whatever line ends the user's own files have.
RAW = {
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "core.autocrlf",
    "GIT_CONFIG_VALUE_0": "false",
    "GIT_CONFIG_KEY_1": "core.eol",
    "GIT_CONFIG_VALUE_1": "lf",
}


def open_repository() -> "type[git.Repo]":
    """GitPython's Repo, imported late: it costs a tenth of a second and fails at import where git is missing."""
    for name in GIT_ENVIRONMENT:
        os.environ.pop(name, None)
    if shutil.which("git") is None:
        raise WorkspaceError("git is not installed or not on PATH. Install it (Debian: `apt install git`) and try again.")
    import git

    return git.Repo


def identity(repo: "git.Repo") -> dict[str, str]:
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


def cause_of(error: Exception) -> str:
    """The line that names the cause in what git said: the last `fatal:` or `error:`, else the last one. Also of other errors."""
    said = str(getattr(error, "stderr", "") or error).strip().removeprefix("stderr: ").strip("' \n")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (causes or lines or ["git said nothing"])[-1]


def experiment_ref(number: int) -> str:
    return f"{EXPERIMENTS}/{number}"


class Workspace:
    """An open workspace. Raises WorkspaceError where the folder cannot be one; every failure of git is a WorkspaceError too."""

    def __init__(self, directory: Path):
        repo_class = open_repository()
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
        self._require_a_commit()
        if not (self.root / TASK_FILE).exists() and not (self.root / STATE / "ledger.db").exists():
            raise WorkspaceError(
                f"{self.root} has no {TASK_FILE}, so it is no workspace. Run `autoresearch-mcp init` on a new folder; or write one "
                "here and commit it."
            )
        self.common = Path(self.repo.common_dir).absolute()
        self.state_dir = self.root / STATE
        self.runs_dir = self.state_dir / "runs"
        self.token_path = self.state_dir / "http-token"
        self.blob = lru_cache(maxsize=64)(self._read_blob)
        """Content of a file at a commit: blob(commit, path). Raises WorkspaceError where it is not there."""
        try:
            self.runs_dir.mkdir(parents=True, exist_ok=True)
            self._exclude()
        except OSError as error:
            raise WorkspaceError(
                f"{self.state_dir} cannot be written: {error}. Make the folder yours, or free disk space."
            ) from error

    def _require_a_commit(self) -> None:
        """Raises WorkspaceError where there is none, or git says why it cannot tell."""
        from git.exc import GitError

        try:
            self.repo.git.rev_parse("--verify", "HEAD^{commit}")
        except (GitError, OSError) as error:
            reason = cause_of(error)
            if "Needed a single revision" in reason and not any((Path(self.repo.common_dir) / "refs" / "heads").rglob("*")):
                raise WorkspaceError(f"{self.root} has no commit yet. Commit the task's files, then try again.") from error
            raise WorkspaceError(
                f"git cannot read {self.root}: {reason}. Mend that (`git -C {self.root} status` and `git fsck` say more), then try "
                "again; nothing was written."
            ) from error

    def require_root(self) -> None:
        """Raises WorkspaceError where the folder was moved or removed while it is in use; nothing is written to its old place."""
        if not self.state_dir.is_dir():
            raise WorkspaceError(
                f"{self.root} is not there any more: it was moved or removed. Start the server again with the new path."
            )

    def bearer_token(self) -> str:
        """The token of HTTP clients, made on first use: 256 random bits, readable by the owner alone."""
        return made_secret(self.token_path)

    def page_secret(self) -> str:
        """What links to the page and its cookies are made from. Another than the token, which agents' clients have."""
        return made_secret(self.state_dir / "page-secret")

    def known_token(self) -> str | None:
        """The token of HTTP clients, where one was made."""
        return known_secret(self.token_path)

    def _exclude(self) -> None:
        """Keeps our state out of the user's `git status` without touching a tracked file."""
        path = self.common / "info" / "exclude"
        path.parent.mkdir(parents=True, exist_ok=True)
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        missing = [line for line in EXCLUDED if line not in present.splitlines()]
        if missing:
            separator = "" if not present or present.endswith("\n") else "\n"
            write_atomic(path, (present + separator + "\n".join(missing) + "\n").encode())

    # --- reading ---

    def head(self) -> str:
        return str(self.run("rev_parse", "HEAD"))

    def _read_blob(self, commit: str, path: str) -> bytes:
        try:
            return self.run("cat_file", "blob", f"{commit}:{path}", stdout_as_string=False, strip_newline_in_stdout=False)
        except WorkspaceError as error:
            self.require_root()
            raise WorkspaceError(
                f"{path} is not in commit {commit[:7]} of {self.root}. Commit it and start a new session."
            ) from error

    def task_at(self, commit: str) -> Task:
        """The task of a commit, its read-only folders and patterns as the files that they stand for there."""
        task = parse_task(self.blob(commit, TASK_FILE).decode("utf-8", errors="replace"), TASK_FILE)
        task = with_read_only(task, self._files_at(commit, task))
        for path in (task.files.editable, *task.files.read_only):
            self.blob(commit, path)
        if self._mode(commit, task.files.editable) == LINK:
            raise WorkspaceError(f"{task.files.editable} is a symbolic link. Name the file itself in {TASK_FILE}.")
        return task

    def _files_at(self, commit: str, task: Task) -> dict[str, list[str]]:
        """By folder or pattern of files.read_only: the files of a commit that it stands for, no links."""
        found: dict[str, list[str]] = {}
        for pattern in task.files.read_only:
            if self._mode(commit, pattern) in ("100644", "100755", LINK):
                continue
            listed = str(self.run("diff_tree", "-r", "-z", "--no-renames", EMPTY_TREE, commit, "--", f":(glob){pattern}"))
            fields = listed.split("\0")
            pairs = zip(fields[::2], fields[1::2], strict=False)
            found[pattern] = [path for status, path in pairs if status.split()[1] != LINK]
        return found

    def program_digest(self, commit: str) -> str:
        """The first digits of the SHA-256 of program.md at a commit; empty where it has none."""
        try:
            return sha256(self.blob(commit, PROGRAM))[:12]
        except WorkspaceError:
            return ""

    def changed_since(self, commit: str, names: Iterable[str]) -> list[str]:
        """Which of these files the last commit of the user's own branch has otherwise than `commit`."""
        listed = str(self.run("diff_tree", "-r", "-z", "--name-only", "--no-renames", commit, "HEAD", "--", *names))
        return [name for name in listed.split("\0") if name]

    def sources(self, task: Task, commit: str) -> dict[str, bytes]:
        """What the task's data is made from, by path, as it is at a commit; what is too large to be committed is left out."""
        found: dict[str, bytes] = {}
        for path in task.data.sources:
            with suppress(WorkspaceError):
                found[path] = self.blob(commit, path)
        return found

    def pinned(self, task: Task, commit: str) -> dict[str, bytes]:
        """The task's read-only files by path, as they are at a commit."""
        return {path: self.blob(commit, path) for path in task.files.read_only}

    def data(self) -> DataFolder:
        """The data of the task as it is in the last commit: for whoever asks before there is a session."""
        commit = self.head()
        task = self.task_at(commit)
        return DataFolder(task, self.pinned(task, commit) | self.sources(task, commit))

    def _mode(self, commit: str, path: str) -> str:
        return str(self.run("ls_tree", commit, "--", path, env={"GIT_LITERAL_PATHSPECS": "1"})).split(" ", 1)[0]

    def check_committed(self, task: Task) -> None:
        """Refuses to start a session while files that it would pin differ from the last commit: it would not use what one sees."""
        if dirty := self.uncommitted(TASK_FILE, PROGRAM, task.files.editable, *task.files.read_only):
            raise WorkspaceError(f"Uncommitted changes in {', '.join(dirty)}. Commit or stash them, then start the session.")

    def uncommitted(self, *names: str) -> list[str]:
        """Which of these files differ from the last commit."""
        found = str(self.run("status", "--porcelain", "--", *names, env={"GIT_OPTIONAL_LOCKS": "0"}))
        return sorted({line[3:] for line in found.splitlines()})

    def ref(self, name: str) -> str | None:
        found: str = self.run("for_each_ref", "--format=%(objectname)", name)
        return found.splitlines()[0] if found else None

    # --- writing ---

    def commit_file(self, parent: str, path: str, content: bytes, message: str) -> str:
        """Commits `parent` with one file changed; no branch, index or working tree is touched. Returns the commit."""
        return self.commit_files(parent, path, [(content, message)])[0]

    def commit_files(self, parent: str, path: str, contents: Sequence[tuple[bytes, str]]) -> list[str]:
        """The same for several contents of the file, each with its message: a commit on `parent` for each."""
        return make_commits(self.run, self.state_dir, identity(self.repo), parent, path, contents)

    def set_ref(self, name: str, commit: str) -> None:
        self.run("update_ref", name, commit)

    def set_refs(self, commits: Mapping[str, str]) -> None:
        """Of several refs all or none."""
        with lines(self.state_dir, (f"update {name} {commit}" for name, commit in commits.items())) as orders:
            self.run("update_ref", "--stdin", istream=orders)

    def highest_experiment(self) -> int:
        """The number of the last experiment that git knows, of whatever ledger; 0 where it knows none."""
        refs = str(self.run("for_each_ref", "--format=%(refname:lstrip=3)", EXPERIMENTS)).split()
        return max((int(name) for name in refs if name.isascii() and name.isdigit()), default=0)

    def highest_run(self) -> int:
        """The number of the last run whose folder is there; 0 where there is none."""
        return max((int(path.name) for path in self.runs_dir.iterdir() if path.name.isascii() and path.name.isdigit()), default=0)

    def restore_refs(self, commits: dict[int, str]) -> list[int]:
        """Makes the refs of experiments that are missing, all in one process; returns the experiments whose commit is gone."""
        have = set(str(self.run("for_each_ref", "--format=%(refname)", EXPERIMENTS)).split())
        missing = {number: commit for number, commit in commits.items() if experiment_ref(number) not in have}
        if not missing:
            return []
        with lines(self.state_dir, missing.values()) as names:
            found = str(self.run("cat_file", "--batch-check", istream=names)).splitlines()
        gone = [number for number, line in zip(missing, found, strict=True) if line.endswith("missing")]
        self.set_refs({experiment_ref(number): commit for number, commit in missing.items() if number not in set(gone)})
        return gone

    def move_branch(self, branch: str, commit: str, worktree: Path) -> None:
        """Points the branch at a commit and the worktree's index with it; files stay as they are."""
        self.set_ref(f"refs/heads/{branch}", commit)
        self.run("read_tree", commit, env={"GIT_INDEX_FILE": str(self._entry(worktree) / "index")})

    # --- the sessions' worktrees ---

    def worktree_path(self, tag: str) -> Path:
        return self.state_dir / "worktrees" / tag

    def worktree(self, tag: str, branch: str) -> Path:
        """The session's linked worktree, made where it is missing, linked anew where repository or worktree were moved."""
        path = self.worktree_path(tag)
        if not path.is_dir():
            path.unlink(missing_ok=True)
            self.run("worktree", "prune")
            self.run("worktree", "add", "-f", str(path), branch, env=RAW)
        elif not self._entry(path).is_dir():
            self._add_around(path, branch)
        self._link(path, self._entry(path))
        return path

    def _entry(self, worktree: Path) -> Path:
        """The repository's entry of a linked worktree, by the name that the worktree's .git file has for it."""
        try:
            named = (worktree / ".git").read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        except (OSError, UnicodeDecodeError):
            named = ""
        return self.common / "worktrees" / (Path(named).name or worktree.name)

    def _link(self, worktree: Path, entry: Path) -> None:
        """Both directions, as gitrepository-layout(5) has them: they are absolute, so a moved workspace breaks them."""
        for path, content in ((worktree / ".git", f"gitdir: {entry}\n"), (entry / "gitdir", f"{worktree / '.git'}\n")):
            if not path.is_file() or path.read_bytes() != content.encode():
                write_atomic(path, content.encode())

    def _add_around(self, path: Path, branch: str) -> None:
        """A new entry for a worktree whose own was lost; no file in it is touched."""
        beside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
        try:
            self.run("worktree", "prune")
            self.run("worktree", "add", "-f", "--no-checkout", str(beside), branch)
            os.replace(beside / ".git", path / ".git")
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._link(path, self._entry(path))
        self.run("read_tree", branch, env={"GIT_INDEX_FILE": str(self._entry(path) / "index")})

    # --- git ---

    def run(self, command: str, *arguments: str, **options: Any) -> Any:
        """One git command; returns its output. Raises WorkspaceError with what git said; stale locks of ours are removed."""
        from git.exc import CommandError

        for attempt in range(LOCKS + 1):
            try:
                if "istream" in options:
                    options["istream"].seek(0)
                return getattr(self.repo.git, command)(*arguments, **options)
            except (CommandError, OSError) as error:
                lock = _LOCK_EXISTS.search(str(error))
                if attempt < LOCKS and lock and self._remove_stale(Path(lock["lock"])):
                    continue
                what = f"`git {command.replace('_', '-')}` failed in {self.root}: {cause_of(error)}"
                advice = f"If no git command runs there, remove it: rm {lock['lock']}" if lock else "Run: autoresearch-mcp doctor"
                raise WorkspaceError(f"{what}. {advice}") from error
        raise AssertionError

    def _remove_stale(self, lock: Path) -> bool:
        """Whether a lock of git's was in our part of the repository, and is gone now: it went by itself, or was stale."""
        lock = lock if lock.is_absolute() else self.root / lock
        ours = [self.common / "refs" / "heads" / "autoresearch", self.common / "refs" / "autoresearch"]
        ours += [self._entry(path.parent) for path in (self.state_dir / "worktrees").glob("*/.git")]
        if not any(lock.is_relative_to(folder) for folder in ours):
            return False
        try:
            time.sleep(min(STALE, max(0.0, STALE - (time.time() - lock.stat().st_mtime))))
            lock.unlink()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True
