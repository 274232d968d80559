"""Where a run takes place, and what anything that starts runs must promise: this machine (local), a Ray cluster (ray)."""

from collections.abc import Mapping
from typing import Protocol

from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import Run


class Executor(Protocol):
    """Starts runs and answers for them. Any number of processes may hold executors of one kind for the same runs: what one starts,
    another can ask about, stop and collect, so all that matters is durable, in the run's folder or at the place where it runs.

    A started run outlives whoever started it. Its host records the result, one `RunEnded` in the ledger that the spec names, before
    it ends; while `is_alive` says yes, nobody else may. A host that could not write the ledger leaves the result for `collect`.

    Every method is for a worker thread: it may block for a moment (`start` for as long as copying the public data takes, `clean_up`
    for as long as ending processes takes), never for a run. For a run that is dead, unknown or of another version none raises.
    """

    def start(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        """Lays out `files` (path: content) and starts the run; from then until its result is recorded or left, it is alive. What
        an earlier run left in its folder is gone. A run that is alive is left alone. Raises WorkspaceError where the run cannot
        be laid out or started; then nothing of it runs.
        """
        ...

    def get_ready(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        """Makes ready what a next run like this one can begin with, before its editable file is known; `files` are the others. It
        may do nothing, and it is no run. Cheap where it was called before.
        """
        ...

    def is_alive(self, spec: RunSpec) -> bool:
        """Whether somebody still answers for the run. False is final: what is not recorded or left by then never will be."""
        ...

    def stop(self, spec: RunSpec) -> None:
        """Asks for the run's end, which is recorded as killed; returns before it. May be called again. Raises WorkspaceError where
        the run lives and cannot be asked.
        """
        ...

    def progress(self, spec: RunSpec) -> Progress:
        """Where the run is, a second ago at most while it lives; queued where nothing is known."""
        ...

    def collect(self, spec: RunSpec) -> RunEnded | None:
        """The result that a host left, recorded or not; None where there is none. May be called again."""
        ...

    def clean_up(self, spec: RunSpec) -> None:
        """Ends what a dead host left running, and removes what only a living one has use for. Does nothing to a run that is alive.
        May be called again.
        """
        ...

    def capacity(self, run: Run) -> int:
        """How many such runs have room at once, if nothing else is on; 0 where there is none for one."""
        ...

    def in_use(self) -> list[Use]:
        """What there is of each kind, how much of it is taken, and how many wait for it."""
        ...
