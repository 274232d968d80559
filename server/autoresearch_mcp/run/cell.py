"""Starts what belongs to a run, each confined to a folder: the run itself, its scoring command, what that has executed, the checks,
and the lender of its data. Run and scoring command can be made ready before the run is known.

Everything that a process of a run is given is decided here: what it may open, its environment, its descriptors.
"""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import anyio.to_thread

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run import outputs, sandbox, users, visible
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.gpus import Reach
from autoresearch_mcp.run.hardware import Granted, granted
from autoresearch_mcp.run.inside import lend, relay, waiting
from autoresearch_mcp.run.levels import REGISTRY, SYSTEM_FILES, Confinement
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.proxy import Proxy
from autoresearch_mcp.run.refusals import Refusals
from autoresearch_mcp.run.scoring import Scoring
from autoresearch_mcp.run.slots import Slot
from autoresearch_mcp.run.spare import Spare
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import Check, Network
from autoresearch_mcp.task import Task, expand, lacking, program

LENDING = 20.0  # seconds
WAITING = Path(waiting.__file__)
EDITED = ".edited"  # where a check finds the editable file as data: no name that an import could have
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Without it cuBLAS may add in another order each time: https://docs.nvidia.com/cuda/cublas/#results-reproducibility."""


def _loading(task: Task) -> list[str]:
    """A process that imports what the task's runs begin with."""
    return ["{python}", str(WAITING), *task.run.preload]


class Cell:
    """Of one run, in the slot that is set once it is taken."""

    def __init__(self, spec: RunSpec):
        self.spec, self.task = spec, spec.task
        self.slot, self._there = Slot(), granted()
        self.spare = Spare()
        self._made = 0
        self.fresh: list[Path] = []
        """Folders made for checks and for what scoring has executed, that are in use."""
        self._proxies: list[Proxy] = []
        self.refusals = Refusals(spec.home) if spec.watch and spec.enforcement in ("landlock", "bubblewrap") else None
        self._users = users.take() if spec.enforcement == "landlock" else None

    @property
    def _granted(self) -> Granted:
        return self.slot.of(self._there)

    @property
    def _cores(self) -> tuple[int, ...]:
        """Those that a run with cores of its own, and its scoring, are held to. One on a GPU may feed it from where it likes."""
        return self._granted.pinned if self.slot.cores else ()

    @property
    def users(self) -> list[int]:
        """The user ids that the run and its scoring have to themselves; none where they share the server's."""
        return [self._users.run, self._users.scoring] if self._users else []

    def follow(self) -> None:
        """A workspace may be moved while a run is on."""
        self.spec = self.spec.where_it_lies_now()

    async def get_ready(self) -> None:
        """Starts what the run can begin with before it is known, in the slot that is set; it waits when this returns. Where that
        fails, or is cut short, nothing of it is left. Raises OSError, RunFailedError.
        """
        log = BoundedLog(self.spec.log, self.task.run.log_bytes)
        try:
            self.spare.child, self.spare.control = self._start_run(_loading(self.task), log, subprocess.PIPE, [WAITING])
            if self.task.metric.starts_early:
                self.spare.scoring = self.start_scoring()
            await self.spare.ready()
        except BaseException:
            self.close()
            log.close()
            raise

    def take_on(self) -> None:
        """The run that this was made ready for has come, and its file lies there: it belongs to the run. Raises OSError."""
        if self._users is not None and self.spare.child is not None:
            users.give(self.spec.work, self._users.run)
            users.give(self.spec.scoring, self._users.scoring)

    def start_run(self, command: list[str], log: BoundedLog) -> tuple[Child, socket.socket]:
        """The run, and our end of the socket over which it asks for things. Raises RunFailedError."""
        seed = str(self.spec.seed)
        python = str(visible.interpreter(self.spec.environment))
        argv = expand(command, python=python, preset=self.task.preset or "", seed=seed)[1:]
        if (begun := self.spare.begin(argv, {"AUTORESEARCH_SEED": seed}, log)) is not None:
            return begun
        try:
            if self.task.run.preload:
                return self._start_run([*_loading(self.task), "--", *command[1:]], log, shown=[WAITING])
            return self._start_run(command, log)
        except OSError as error:
            raise RunFailedError("crash", "error", f"run.command cannot be started: {error}") from error

    def start_compiling(self, command: list[str], log: BoundedLog) -> tuple[Child, socket.socket]:
        """The same in a folder made anew, for a run that will be given nothing. Raises OSError, RunFailedError."""
        folder = self._fresh("compile")
        for name in self.task.data.public:
            (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.spec.work / "data" / name, folder / "data" / name)
        return self._start_run(command, log, folder=folder)

    def put(self, source: Path, name: str) -> None:
        """A copy of a folder of ours into the run's, before the run is there. Raises OSError."""
        shutil.copytree(source, self.spec.work / name, dirs_exist_ok=True)
        if self._users is not None:
            users.give(self.spec.work, self._users.run)

    def _start_run(
        self,
        command: list[str],
        log: BoundedLog,
        stdin: int = subprocess.DEVNULL,
        shown: Sequence[Path] = (),
        folder: Path | None = None,
    ) -> tuple[Child, socket.socket]:
        run, work = self.task.run, folder or self.spec.work
        command, environment = self._as_run(command, work, run.env, run.network, shown)
        ours, theirs = socket.socketpair()
        with theirs:
            environment["AUTORESEARCH_SOCKET"] = str(theirs.fileno())
            try:
                given = [theirs.fileno(), *self._told]
                return Child(command, work, environment, log, given, stdin=stdin, cores=self._cores), ours
            except BaseException:
                ours.close()
                raise

    def start_called(self, command: list[str], log: BoundedLog, stdin: int, stdout: int) -> Child:
        """What the scoring command has executed: as the run, in a folder made anew, with no data but what it is sent. Raises
        OSError, RunFailedError.
        """
        folder = self._fresh("called")
        command, environment = self._as_run(command, folder, self.task.run.env, "none")
        return Child(command, folder, environment, log, self._told, stdin=stdin, stdout=stdout, cores=self._cores)

    def start_check(self, check: Check, log: BoundedLog) -> Child:
        """One of the task's checks, in a folder made anew: with the outputs of the run, and with the editable file where the task
        says. Raises OSError, RunFailedError.
        """
        folder, name = self._fresh("check"), self.task.files.editable
        file = folder / name
        if not check.executes:
            file = folder / EDITED / name
            file.parent.mkdir(parents=True)
            (folder / name).rename(file)
        if check.executes:
            command, environment = self._as_run(check.command, folder, check.env, "none", file=str(file))
        else:
            readable = [*visible.installed(), *self._toolchains(check.command)]
            command = expand(check.command, file=str(file), preset=self.task.preset or "", seed=str(self.spec.seed))
            command = self._confined(command, folder, readable, by_run=True)
            environment = self._environment(folder, check.env)
        return Child(command, folder, environment, log, self._told, cores=self._cores)

    def _fresh(self, kind: str) -> Path:
        """A folder with the files as they were laid out and the run's outputs, that nothing has worked in."""
        self._made += 1
        folder = self.spec.home / f"{kind}-{self._made}"
        shutil.copytree(self.spec.files, folder)
        for output in self.task.run.outputs:
            if (self.spec.scoring / output).is_file():
                (folder / output).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.spec.scoring / output, folder / output)
        self.fresh.append(folder)
        return folder

    def done_with(self, folder: Path) -> None:
        """Removes a folder that was made for a check, or for what scoring has executed."""
        outputs.remove(folder, patience=5.0)
        if folder in self.fresh:
            self.fresh.remove(folder)

    def _as_run(
        self,
        command: list[str],
        folder: Path,
        env: Mapping[str, str],
        network: Network,
        shown: Sequence[Path] = (),
        **places: str,
    ) -> tuple[list[str], dict[str, str]]:
        """A command and its environment in the sandbox that runs have: the packages that they may import, no data, nothing sealed.
        `shown` it may read beside them; `places` are what its words in braces stand for. Raises OSError, RunFailedError.
        """
        seed, preset = str(self.spec.seed), self.task.preset or ""
        environment = self._environment(
            folder,
            env,
            AUTORESEARCH_PRESET=preset,
            AUTORESEARCH_BUDGET=str(self.task.run.budget_seconds),
            AUTORESEARCH_SEED=seed,
            AUTORESEARCH_DATA=str(folder / "data"),
        )
        try:
            listed = visible.entries(self.task.run.packages)
        except PackageNotFoundError as error:
            raise RunFailedError("refused", "refused", lacking([str(error.name)])) from error
        except ValueError as error:
            advice = "A human should install it anew: pip install --force-reinstall"
            raise RunFailedError("refused", "refused", f"{error}. {advice}") from error
        python = visible.make_environment(self.spec.environment, listed)
        environment |= {"VIRTUAL_ENV": str(self.spec.environment), "PATH": f"{python.parent}:{environment.get('PATH', '')}"}
        toolchains = self._toolchains(command)
        command = expand(command, python=str(python), preset=preset, seed=seed, **places)
        hidden = [*visible.private(), self.spec.results.parent, *([self.spec.data] if self.spec.data else [])]
        readable = [self.spec.environment, *listed.values(), *toolchains, *shown]
        return self._confined(command, folder, readable, hidden, network, by_run=True), environment

    def start_scoring(self) -> Scoring:
        """Raises RunFailedError."""
        data, preset, metric = self.spec.data, self.task.preset or "", self.task.metric
        command = expand(metric.command, data=str(data or ""), preset=preset, seed=str(self.spec.seed))
        readable = [*visible.installed(), sandbox.PACKAGES, *self._toolchains(metric.command), *([data] if data else [])]
        try:
            command = self._confined(command, self.spec.scoring, readable, network=metric.network)
            environment = self._environment(self.spec.scoring, metric.env, **DETERMINISTIC)
            return Scoring(self.spec, command, environment, self._cores, self._told)
        except OSError as error:
            raise RunFailedError("crash", "scoring", f"metric.command cannot be started: {error}") from error

    @property
    def _told(self) -> list[int]:
        """Descriptors that every process is given beside its own: by which a trial's say what they are refused."""
        return [self.refusals.theirs.fileno()] if self.refusals else []

    def _toolchains(self, command: list[str]) -> list[Path]:
        """Where the programs lie that a command names, and what the task lists itself."""
        named = [Path(place) for place in map(program, command) if place]
        found = [*named, *map(visible.installation, named)]  # a link by its own name too: some programs go by what they are called
        return [*found, *(Path(place).expanduser() for place in self.task.sandbox.readable)]

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
                    command, pass_fds=[descriptor, *self._told], stdin=subprocess.DEVNULL, capture_output=True, timeout=LENDING
                )
            descriptors = socket.recv_fds(ours, 1, len(paths))[1]  # its end is closed, so this does not wait
        if len(descriptors) != len(paths):
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(result.stderr.decode(errors="replace").strip()[-300:] or "no descriptors came")
        return descriptors

    def _confined(
        self,
        command: list[str],
        folder: Path,
        readable: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        network: Network = "none",
        by_run: bool = False,
    ) -> list[str]:
        """`by_run`: under the id of the run, where it has one, and not of its scoring."""
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
            user = self._users.run if by_run else self._users.scoring
            users.give(folder, user)
        limits = (Reach.of(self.slot.gpus).files, bounds.processes, bounds.disk_mb << 20)
        pinned, loopback = bool(self._cores), network != "none"
        if isinstance(network, list) and self.spec.enforcement == "bubblewrap":
            command, through = self._with_hosts(command, network)
            readable = [*readable, *through]
        confinement = Confinement(folder, readable, hidden, *limits, self.spec.mark, user, pinned, loopback)
        if self.refusals is not None and (calls := REGISTRY[self.spec.enforcement].calls(confinement)) is not None:
            told = self.refusals.begin(calls, confinement.rules, SYSTEM_FILES)
            confinement = dataclasses.replace(confinement, tell=told)
        return sandbox.wrap(self.spec.enforcement, command, confinement)

    def _with_hosts(self, command: list[str], hosts: list[str]) -> tuple[list[str], list[Path]]:
        """The command with a way to the hosts, and what it must be able to read for it."""
        path = self.spec.home / f"hosts-{len(self._proxies)}"
        self._proxies.append(Proxy(path, hosts, self._refused_host))
        launcher = Path(relay.__file__)
        return [sys.executable, "-I", "-S", str(launcher), str(path), "--", *command], [launcher, path]

    def _refused_host(self, host: str) -> None:
        if self.refusals is not None:
            self.refusals.note(f"connect {host}: not among the hosts that network names")

    def close(self) -> None:
        """Lets go of what was opened for its processes. May be called again."""
        self.spare.close()
        while self._proxies:
            self._proxies.pop().close()
        if self.refusals is not None:
            self.refusals.close()

    def _environment(self, folder: Path, env: Mapping[str, str] | None = None, **extra: str) -> dict[str, str]:
        """Of the task's own settings those count that say nothing against what a run is told. `~/` is the human's home, not the
        run's.
        """
        extra = {
            name: os.path.expanduser(value) if value.startswith("~/") else value for name, value in (env or {}).items()
        } | extra
        if self.task.run.device == "cpu":
            extra["AUTORESEARCH_DEVICE"] = "cpu"
        extra |= {"CUDA_VISIBLE_DEVICES": Reach.of(self.slot.gpus).names, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return sandbox.environment(folder, str(self.spec.home), self._granted.environment | extra)
