"""Starts what belongs to a run, each confined to a folder: the run itself, its scoring command, and the lender of its data.

Everything that a process of a run is given is decided here: what it may open, its environment, its descriptors.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import anyio.to_thread

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run import sandbox, users, visible
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.hardware import granted
from autoresearch_mcp.run.inside import lend
from autoresearch_mcp.run.levels import Confinement
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.scoring import Scoring
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import expand, lacking

LENDING = 20.0  # seconds
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it cuBLAS may add in another order each time: https://docs.nvidia.com/cuda/cublas/#results-reproducibility."""


class Cell:
    """Of one run, in the slot that is set once it is taken."""

    def __init__(self, spec: RunSpec):
        self.spec, self.task = spec, spec.task
        self.slot = ""
        self.granted = granted()
        self._users = users.take() if spec.enforcement == "landlock" else None

    @property
    def _gpu(self) -> str:
        """The GPU's index; empty for the CPU."""
        return self.slot.removeprefix("gpu") if self.slot.startswith("gpu") else ""

    @property
    def _cores(self) -> tuple[int, ...]:
        """Those that a run on the CPU, and its scoring, are held to. One on a GPU may feed it from where it likes."""
        return () if self._gpu else self.granted.pinned

    @property
    def users(self) -> list[int]:
        """The user ids that the run and its scoring have to themselves; none where they share the server's."""
        return [self._users.run, self._users.scoring] if self._users else []

    def start_run(self, command: list[str], log: BoundedLog, control_socket: int) -> Child:
        """Raises RunFailedError."""
        seed, preset, work = str(self.spec.seed), self.task.preset or "", self.spec.work
        environment = self._environment(
            work,
            AUTORESEARCH_PRESET=preset,
            AUTORESEARCH_BUDGET=str(self.task.run.budget_seconds),
            AUTORESEARCH_SEED=seed,
            AUTORESEARCH_SOCKET=str(control_socket),
            AUTORESEARCH_DATA=str(work / "data"),
        )
        try:
            python = visible.make_environment(self.spec.environment, self.task.run.packages)
            environment |= {"VIRTUAL_ENV": str(self.spec.environment), "PATH": f"{python.parent}:{environment.get('PATH', '')}"}
            command = expand(command, python=str(python), preset=preset, seed=seed)
            listed = visible.entries(tuple(self.task.run.packages)).values()
            hidden = [*visible.private(), self.spec.results.parent, *([self.spec.data] if self.spec.data else [])]
            command = self._confined(command, work, [self.spec.environment, *listed], hidden)
            return Child(command, work, environment, log, [control_socket], cores=self._cores)
        except PackageNotFoundError as error:
            raise RunFailedError("refused", "refused", lacking([str(error.name)])) from error
        except OSError as error:
            raise RunFailedError("crash", "error", f"run.command cannot be started: {error}") from error

    def start_scoring(self) -> Scoring:
        """Raises RunFailedError."""
        data, preset = self.spec.data, self.task.preset or ""
        command = expand(self.task.metric.command, data=str(data or ""), preset=preset, seed=str(self.spec.seed))
        command = self._confined(command, self.spec.scoring, [*visible.installed(), sandbox.PACKAGES, *([data] if data else [])])
        try:
            return Scoring(self.spec, command, self._environment(self.spec.scoring, **DETERMINISTIC), self._cores)
        except OSError as error:
            raise RunFailedError("crash", "error", f"metric.command cannot be started: {error}") from error

    async def open_data(self, data: Path) -> list[int]:
        """Descriptors of the training files that nobody can turn into writable ones, as far as the level allows. Raises
        RunFailedError.
        """
        paths = [data / name for name in self.task.data.train]
        try:
            if self.spec.enforcement != "bubblewrap":
                return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
            return await anyio.to_thread.run_sync(self._lent, paths, data)
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"the training data could not be handed over: {error}. A human should run: autoresearch-mcp prepare"
            raise RunFailedError("crash", "error", reason) from error

    def _lent(self, paths: list[Path], data: Path) -> list[int]:
        lender = Path(lend.__file__)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                command = [sys.executable, "-I", "-S", str(lender), str(theirs.fileno()), *map(str, paths)]
                command = self._confined(command, self.spec.scoring, [lender, data])
                descriptor = theirs.fileno()
                result = subprocess.run(
                    command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, capture_output=True, timeout=LENDING
                )
            descriptors = socket.recv_fds(ours, 1, len(paths))[1]  # its end is closed, so this does not wait
        if len(descriptors) != len(paths):
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(result.stderr.decode(errors="replace").strip()[-300:] or "no descriptors came")
        return descriptors

    def _confined(self, command: list[str], folder: Path, readable: Sequence[Path] = (), hidden: Sequence[Path] = ()) -> list[str]:
        (folder / "tmp").mkdir(exist_ok=True)
        bounds = self.task.sandbox
        user = None
        if self._users is None and self.spec.enforcement == "landlock" and users.possible():
            reason = (
                "no user id is free for the run: other runs, or processes that carry their ids, hold them all. "
                "See what runs here with: ps -eo uid,pid,cmd"
            )
            raise RunFailedError("refused", "refused", reason)
        if self._users is not None:
            user = self._users.run if folder == self.spec.work else self._users.scoring
            users.give(folder, user)
        limits = (bounds.processes, bounds.disk_mb << 20)
        confinement = Confinement(folder, readable, hidden, bool(self._gpu), *limits, self.spec.mark, user, bool(self._cores))
        return sandbox.wrap(self.spec.enforcement, command, confinement)

    def _environment(self, folder: Path, **extra: str) -> dict[str, str]:
        if self.task.run.device == "cpu":
            extra["AUTORESEARCH_DEVICE"] = "cpu"
        extra |= {"CUDA_VISIBLE_DEVICES": self._gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as slots number them
        return sandbox.environment(folder, str(self.spec.folder), **self.granted.environment, **extra)
