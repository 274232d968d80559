"""Runs on a Ray cluster (the extra autoresearch-mcp[ray]): each is one actor, on whatever node has room. Ray places it, carries
what it needs there, and notices when its node dies; the rest is as on one machine (remote.py).

An actor outlives whoever started it. Its result waits in the cluster's table until a server of the workspace records it, as what a
dead host left is recorded: once. A run whose actor is gone without a result is lost; a cluster that cannot be reached says nothing
about its runs, so they stay on record as being on.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors.carrying import Manifest
from autoresearch_mcp.executors.remote import LOGS, versions
from autoresearch_mcp.executors.table import RUN, Order, Wants
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import outputs
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import Run

ADDRESS = "auto"  # Ray's word for the cluster of this machine
CONNECT, ANSWER, BRING = 90.0, 20.0, 3600.0  # seconds for the first answer of a cluster, for any other, and for bringing data there
KNOCK = 10.0  # seconds for a connection
AGAIN = 10.0  # seconds before a cluster that could not be reached is tried again


class RayExecutor:
    """An Executor. Safe to use from several threads."""

    def __init__(self, address: str = ADDRESS):
        self._link = Link(address)
        self._address = address
        self._manifests: dict[Path, Manifest] = {}

    def get_ready(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        """Nothing waits on a cluster: on which node is not known."""

    def start(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        if spec.path.exists() and self.is_alive(spec):
            return
        try:
            outputs.remove(spec.folder)
            spec.folder.mkdir(parents=True)
            spec = spec.model_copy(update={"cluster": self._address})
            write_atomic(spec.path, spec.model_dump_json().encode())
            order = self._order(spec, files)
        except OSError as error:
            raise WorkspaceError(
                f"Run {spec.run} could not be laid out in {spec.folder}: {error}. Free disk space or mend that, then call "
                "run_experiment again."
            ) from error
        try:
            self._link.call("start", order, patience=BRING)
        except WorkspaceError:
            with suppress(WorkspaceError):  # it may have begun all the same
                self._link.call("stop", order.name, order.run)
            raise

    def is_alive(self, spec: RunSpec) -> bool:
        try:
            return self._link.call("is_alive", _name(spec), spec.run)
        except WorkspaceError:  # then nothing is known of it
            return True

    def stop(self, spec: RunSpec) -> None:
        try:
            self._link.call("stop", _name(spec), spec.run)
        except WorkspaceError as error:
            raise WorkspaceError(
                f"{error} If that cluster is gone for good, remove {spec.path}: then the run counts as lost, and is offered again."
            ) from error

    def progress(self, spec: RunSpec) -> Progress:
        """What its logs have gained is brought along."""
        sizes = {name: (spec.folder / name).stat().st_size if (spec.folder / name).exists() else 0 for name in LOGS}
        try:
            said: dict[str, Any] = self._link.call("look", _name(spec), sizes) or {}
            for name, more in said.get("logs", {}).items():
                with suppress(OSError), open(spec.folder / name, "ab") as log:
                    log.write(more)
            return Progress.model_validate_json(said["progress"])
        except (WorkspaceError, ValidationError, KeyError):
            return Progress()

    def collect(self, spec: RunSpec) -> RunEnded | None:
        """Raises WorkspaceError where the cluster has become unreachable: then the run is neither lost nor recorded yet."""
        try:
            ended = RunEnded.model_validate_json(self._link.call("collect", _name(spec), spec.run))
        except ValidationError:
            return None
        return ended if ended.run == spec.run else None

    def clean_up(self, spec: RunSpec) -> None:
        with suppress(WorkspaceError):
            if self._link.call("is_alive", _name(spec), spec.run):
                return
            for name, content in self._link.call("finish", _name(spec)).items():
                path = spec.folder / Path(name).name
                with suppress(OSError):
                    if not path.exists() or path.stat().st_size <= len(content):  # of a long log only the end is kept there
                        write_atomic(path, content)

    def capacity(self, run: Run) -> int:
        try:
            return self._link.call("capacity", _wants(run))
        except WorkspaceError:
            return 0

    def in_use(self) -> list[Use]:
        try:
            return self.resources()
        except WorkspaceError:
            return []

    def resources(self) -> list[Use]:
        """The same. Raises WorkspaceError where the cluster cannot be reached."""
        return self._link.call("in_use")

    def _order(self, spec: RunSpec, files: Mapping[str, bytes]) -> Order:
        data = spec.task.data
        manifest = None
        if spec.data is not None:
            manifest = self._manifests.get(spec.data)
            if manifest is None:  # a session's data does not change: its runs have one fingerprint
                names = [*data.public, *data.train, *data.sealed]
                manifest = self._manifests[spec.data] = Manifest.of(spec.data, names)
        text, wants = spec.model_dump_json(), _wants(spec.task.run)
        return Order(_name(spec), spec.run, text, dict(files), versions(), wants, manifest, spec.data)


class Link:
    """The process that is connected to a cluster: started with the first call, and anew after it has ended."""

    def __init__(self, address: str):
        self._address = address
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._not_before = 0.0
        self._why = ""

    def call(self, method: str, *arguments: Any, patience: float = ANSWER) -> Any:
        """What the cluster answers. Raises WorkspaceError where it cannot be reached or refuses."""
        with self._lock:
            connection = self._connected()
            try:
                connection.send((method, arguments))
                return self._answer(connection, patience)
            except OSError as error:
                self._end()
                raise WorkspaceError(f"The Ray cluster at {self._address} is not there any more ({error}). Call again.") from error

    def _connected(self) -> Connection:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        self._end()
        if importlib.util.find_spec("ray") is None:
            raise WorkspaceError(f"Ray is not installed here. Run: {sys.executable} -m pip install 'autoresearch-mcp[ray]'")
        if time.monotonic() < self._not_before:
            raise WorkspaceError(self._why)
        try:
            _knock(self._address)
        except OSError as error:
            raise self._unreachable(error) from error
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "autoresearch_mcp.executors.connected", str(theirs.fileno()), self._address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "RAY_USAGE_STATS_ENABLED": "0"},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        connection = self._connection = Connection(ours.detach())
        try:
            self._answer(connection, CONNECT)
        except (WorkspaceError, OSError) as error:
            self._end()
            raise self._unreachable(error) from error
        return connection

    def _unreachable(self, error: Exception) -> WorkspaceError:
        """The cluster is left alone for a while."""
        self._not_before = time.monotonic() + AGAIN
        self._why = (
            f"The Ray cluster at {self._address} cannot be reached: {error or 'no answer'}. See that it is up (ray status), "
            "and that the address is right (serve --executor ray --address ADDRESS)."
        )
        return WorkspaceError(self._why)

    def _answer(self, connection: Connection, patience: float) -> Any:
        if not connection.poll(patience):
            raise OSError(f"no answer for {patience:.0f} s")
        try:
            kind, content = connection.recv()
        except EOFError as error:
            raise OSError("the connection was closed") from error
        if kind == "error":
            raise WorkspaceError(f"The Ray cluster at {self._address} answered with an error: {content}")
        return content

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at an address, which Ray finds out in a minute and a half."""
    rest = address.rpartition("://")[2]
    host, _, port = rest.rstrip("/").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def _name(spec: RunSpec) -> str:
    return f"{RUN}{spec.token}"


def _wants(run: Run) -> Wants:
    on_gpu = {"gpu": True, "cpu": False, "auto": None}[run.device]
    return Wants(run.gpus, on_gpu, run.cpus, dict(run.resources))
