"""What the server tells the supervisor of a run: one JSON file in the run's folder, and the names of its neighbours."""

from pathlib import Path

from pydantic import BaseModel

from autoresearch_mcp.task import Task


class RunSpec(BaseModel):
    run: int
    experiment: int
    tag: str
    seed: int
    task: Task
    folder: Path
    """Of this run; holds what the properties below name."""
    ledger: Path
    results: Path
    data: Path | None
    slots: Path
    enforcement: str
    """Sandbox level, as the server's self-check found it."""

    @property
    def work(self) -> Path:
        """What the run sees and may write: the editable file, the read-only files, public data."""
        return self.folder / "work"

    @property
    def scoring(self) -> Path:
        """What the scoring command sees: the same files from the pinned blobs, and the run's outputs."""
        return self.folder / "scoring"

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    @property
    def scoring_log(self) -> Path:
        return self.folder / "scoring.log"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def stop(self) -> Path:
        """Its presence asks the supervisor to end the run."""
        return self.folder / "stop"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.folder / "supervisor.lock"

    @property
    def path(self) -> Path:
        return self.folder / "spec.json"
