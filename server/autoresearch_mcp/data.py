"""Where a task's prepared data lies, how it is made, and the hash that says it is still the same."""

import os
import shutil
import subprocess
from pathlib import Path

import platformdirs

from autoresearch_mcp.errors import NotAllowedError, TaskError
from autoresearch_mcp.files import file_sha256, is_locked, locked, read_json, sha256, write_json
from autoresearch_mcp.task import Task, expand


def cache_root() -> Path:
    """AUTORESEARCH_CACHE, else the platform's cache folder."""
    given = os.environ.get("AUTORESEARCH_CACHE")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("autoresearch-mcp"))


class DataFolder:
    """The prepared data of one task and preset, shared by all workspaces whose preparing files are the same."""

    def __init__(self, task: Task, read_only: dict[str, bytes]):
        """`read_only`: content of the task's read-only files by path, and of its sources, from the pinned commit."""
        self.task = task
        recipe = [repr(task.data.prepare), repr(task.preset), *(f"{path} {sha256(read_only[path])}" for path in sorted(read_only))]
        if task.data.text is not None:
            recipe.append(f"text {self._text}")
        key = sha256("\n".join(recipe).encode())[:12]
        self.path = cache_root() / "data" / task.name / f"{task.preset or 'data'}-{key}"
        self._manifest = self.path.with_name(self.path.name + ".manifest.json")
        self._lock = self.path.with_name(self.path.name + ".lock")
        self._unfinished = self.path.with_name(self.path.name + ".unfinished")

    @property
    def _text(self) -> Path | None:
        return Path(self.task.data.text).expanduser() if self.task.data.text else None

    @property
    def names(self) -> list[str]:
        return [*self.task.data.public, *self.task.data.train, *self.task.data.sealed]

    @property
    def needed(self) -> bool:
        return bool(self.names)

    def missing(self) -> list[str]:
        """Which files are not there; all of them while they are being made, or where that was cut off or failed."""
        unfinished = self._unfinished.exists()
        return [name for name in self.names if unfinished or not (self.path / name).is_file()]

    def require(self, workspace: Path) -> None:
        """Raises NotAllowedError while there is no data to run with."""
        if not (missing := self.missing()):
            return
        if self.in_preparation:
            raise NotAllowedError("The data is being prepared right now. Call status in a minute, then run_experiment again.")
        raise NotAllowedError(
            f"The data is not prepared ({', '.join(missing)} missing in {self.path}). Where the server has just been started it is "
            f"on its way: call status in a minute. Else a human must run: autoresearch-mcp prepare --workspace {workspace}"
        )

    @property
    def in_preparation(self) -> bool:
        """Whether some process is preparing it now."""
        return is_locked(self._lock)

    def prepare(self, workspace: Path, force: bool = False) -> None:
        """Runs the task's prepare command in the workspace, its output passed through. Raises TaskError where it fails."""
        if self.task.data.prepare is None:
            if self.missing():
                raise TaskError(f"The task needs {', '.join(self.missing())} in {self.path}, and it has no [data] prepare command.")
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, "prepare the data", timeout=24 * 3600):
            if not force and not self.missing():
                made = f", made from {self._text} (after changes there: --force)" if self._text is not None else ""
                print(f"data:       ready in {self.path}{made}", flush=True)
            else:
                if force:
                    shutil.rmtree(self.path, ignore_errors=True)
                begun = self.path.exists()
                self.path.mkdir(parents=True, exist_ok=True)
                command = expand(self.task.data.prepare, data=str(self.path), preset=self.task.preset or "")
                environment = os.environ | {"AUTORESEARCH_PRESET": self.task.preset or ""}
                environment.pop("AUTORESEARCH_TEXT", None)
                if self._text is not None:
                    environment["AUTORESEARCH_TEXT"] = str(self._text)
                self._unfinished.touch()
                code = subprocess.run(command, cwd=workspace, env=environment, stdin=subprocess.DEVNULL).returncode
                if code == 0:
                    self._unfinished.unlink()
                if code or self.missing():
                    lacking = f"; missing: {', '.join(self.missing())}" if self.missing() else ""
                    if self._text is not None and not begun:  # another text is other data, so nobody would go on with this
                        shutil.rmtree(self.path, ignore_errors=True)
                        self._unfinished.unlink(missing_ok=True)
                    raise TaskError(
                        f"Preparing the data ended with exit status {code}{lacking}. What it printed is above; "
                        "mend that and run `autoresearch-mcp prepare` again."
                    )
            self.fingerprint()

    def fingerprint(self) -> str:
        """SHA-256 over all data files. A file's own hash is taken again only when its size, time or inode changed."""
        if not self.names:
            return sha256(b"no data")
        known: dict[str, dict[str, object]] = read_json(self._manifest) or {}
        fresh: dict[str, dict[str, object]] = {}
        for name in self.names:
            path = self.path / name
            try:
                status = path.stat()
            except FileNotFoundError as error:
                raise TaskError(f"{path} is missing. Run: autoresearch-mcp prepare") from error
            mark = [status.st_size, status.st_mtime_ns, status.st_ino]
            entry = known.get(name)
            fresh[name] = entry if entry and entry["mark"] == mark else {"mark": mark, "sha256": file_sha256(path)}
        if fresh != known:
            write_json(self._manifest, fresh)
        return sha256("\n".join(f"{name} {fresh[name]['sha256']}" for name in self.names).encode())
