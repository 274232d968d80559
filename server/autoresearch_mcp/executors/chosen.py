"""Where new runs take place, and for each run that is there the executor that it was started with."""

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import EXECUTORS, Run

if TYPE_CHECKING:
    from autoresearch_mcp.executors.ray import RayExecutor

SETTING, ADDRESS = "AUTORESEARCH_EXECUTOR", "RAY_ADDRESS"
"""What counts more than the task's executor, and which cluster a Ray executor is for; `auto` where it is not set."""


@cache
def on_cluster(address: str) -> "RayExecutor":
    """The one executor of this process for a cluster: all sessions share its connection."""
    from autoresearch_mcp.executors.ray import RayExecutor

    return RayExecutor(address)


class ChosenExecutor:
    """An Executor."""

    def __init__(self, by_task: str):
        """`by_task`: what the task says. Raises WorkspaceError for a setting that names nothing."""
        wanted = os.environ.get(SETTING) or by_task
        if wanted not in EXECUTORS:
            raise WorkspaceError(f"{SETTING} is {wanted!r}. Set it to one of: {', '.join(EXECUTORS)}.")
        self.local = LocalExecutor()
        self.cluster = on_cluster(os.environ.get(ADDRESS) or "auto") if wanted == "ray" else None
        self._new: Executor = self.cluster or self.local

    def _of(self, spec: RunSpec) -> Executor:
        return self.local if spec.cluster is None else on_cluster(spec.cluster)

    def start(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        self._new.start(spec, files)

    def get_ready(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        self._new.get_ready(spec, files)

    def capacity(self, run: Run) -> int:
        return self._new.capacity(run)

    def in_use(self) -> list[Use]:
        return self._new.in_use()

    def is_alive(self, spec: RunSpec) -> bool:
        return self._of(spec).is_alive(spec)

    def stop(self, spec: RunSpec) -> None:
        self._of(spec).stop(spec)

    def progress(self, spec: RunSpec) -> Progress:
        return self._of(spec).progress(spec)

    def collect(self, spec: RunSpec) -> RunEnded | None:
        return self._of(spec).collect(spec)

    def clean_up(self, spec: RunSpec) -> None:
        self._of(spec).clean_up(spec)
