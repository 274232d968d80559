"""What a session tells the host of a run: one JSON file in the run's folder, and the one table of its neighbours."""

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ValidationError

from autoresearch_mcp.files import sha256
from autoresearch_mcp.record.curves import Earlier
from autoresearch_mcp.task import Task

SPEC = "spec.json"


class RunSpec(BaseModel, frozen=True):
    run: int
    token: str = ""
    """Of the run's row in the ledger."""
    experiment: int
    tag: str
    seed: int
    task: Task
    folder: Path
    """Of this run; holds what the properties below name."""
    ledger: Path | None
    """What the result goes into; None for a trial, whose result lies in its folder alone."""
    results: Path
    data: Path | None
    conditions: str = ""
    """Hash of the task, the read-only files and the data, as they are when it starts."""
    enforcement: str
    """Sandbox level, as the server's self-check found it."""
    place: Path | None = None
    """Where its processes work, outside every project; in its folder where this is left out."""
    watch: bool = False
    """Whether it is told what the sandbox refuses, which takes longer: for trials."""
    cluster: str | None = None
    """Address of the Ray cluster that it is on; None for this machine."""
    carrier: Path | None = None
    """A lock that is held by whoever carries the result to where it lasts; None for a host that records it by itself."""
    earlier: list[Earlier] = []
    """What its learning curve is compared with while it is on, to end it if it is hopeless; empty for a run that is never ended."""

    @classmethod
    def read(cls, folder: Path) -> "RunSpec | None":
        """The spec in a run's folder, as it lies now: a workspace may have been moved. None where there is none, or one that this
        version cannot read.
        """
        path = folder / SPEC
        try:
            status = path.stat()
            return _read(path, status.st_ino, status.st_mtime_ns)
        except (OSError, ValidationError):
            return None

    def where_it_lies_now(self) -> "RunSpec":
        """The same with the places as they are after a move of the workspace: a host works in the run's folder, and moves along."""
        try:
            folder = Path.cwd()
        except OSError:  # it is gone: then there is no better place
            return self
        if folder == self.folder or not (folder / SPEC).exists():
            return self
        state = folder.parent.parent
        ledger = state / self.ledger.name if self.ledger else None
        moved = {"folder": folder, "ledger": ledger, "results": state.parent / self.results.name}
        return self.model_copy(update=moved)

    @property
    def line(self) -> str:
        """The session that it belongs to, of all on this machine."""
        return f"{self.results.parent}:{self.tag}"

    @property
    def home(self) -> Path:
        """Holds all folders that its processes work in; a workspace that is moved leaves it where it is."""
        return self.place or self.folder

    @property
    def files(self) -> Path:
        """The editable and the read-only files as they were laid out: no process works here, others are made from it."""
        return self.home / "files"

    @property
    def work(self) -> Path:
        """What the run sees and may write: the editable file, the read-only files, public data."""
        return self.home / "work"

    @property
    def scoring(self) -> Path:
        """What the scoring command sees: the same files from the pinned blobs, and the run's outputs."""
        return self.home / "scoring"

    @property
    def environment(self) -> Path:
        """Links to the packages that the run may import."""
        return self.home / "python"

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    @property
    def scoring_log(self) -> Path:
        return self.folder / "scoring.log"

    @property
    def called_log(self) -> Path:
        """What was printed by what scoring has executed, where the task has sealed data: it may quote that."""
        return self.folder / "called.log"

    @property
    def compile_log(self) -> Path:
        """What was printed while the file was run for compiling alone."""
        return self.folder / "compile.log"

    @property
    def checks_log(self) -> Path:
        return self.folder / "checks.log"

    @property
    def refused(self) -> Path:
        """What the sandbox refused, a line each; of a trial alone."""
        return self.folder / "refused.txt"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def stop(self) -> Path:
        """Its presence asks the host to end the run."""
        return self.folder / "stop"

    @property
    def lock(self) -> Path:
        """Held by the host as long as it lives."""
        return self.folder / "host.lock"

    @property
    def host_log(self) -> Path:
        """What went wrong in the host itself."""
        return self.folder / "host.log"

    @property
    def ended(self) -> Path:
        """The result, from before it is in the ledger."""
        return self.folder / "ended.json"

    @property
    def cleared(self) -> Path:
        """Its presence says that no process of the run is left."""
        return self.folder / "cleared"

    @property
    def loaded(self) -> Path:
        """Of a draft: its presence says that what a run can begin with is ready."""
        return self.folder / "loaded"

    @property
    def carried(self) -> Path:
        """Its presence says that the result is where it lasts."""
        return self.folder / "carried"

    @property
    def mark(self) -> int:
        """A number of this run alone: the resource limit that tells its processes, in microseconds; see inside/confine.py."""
        return (1 << 40) + int(sha256(str(self.home).encode())[:9], 16)

    @property
    def path(self) -> Path:
        return self.folder / SPEC


@lru_cache(maxsize=256)  # of runs that are on it is read again and again
def _read(path: Path, inode: int, changed: int) -> RunSpec:
    """A spec as it was written then. Raises OSError, ValidationError."""
    return RunSpec.model_validate_json(path.read_bytes()).model_copy(update={"folder": path.parent})
