"""Runs on a Ray cluster (the extra autoresearch-mcp[ray]): each is one actor, on whatever node has room. Ray places it, carries
what it needs there, and notices when its node dies; the rest is as on one machine (remote.py).

An actor outlives whoever started it. Its result waits in the cluster's table until a server of the workspace records it, as what a
dead host left is recorded: once. A run whose actor is gone without a result is lost; a cluster that cannot be reached says nothing
about its runs, so they stay on record as being on.
"""

import importlib.util
import os
import platform
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

CONNECT, HUNG = 120.0, 60.0  # seconds that a cluster has to be reached, and for any answer, until it is tried anew
GLANCE, ANSWER, START = 2.0, 20.0, 60.0  # seconds that somebody waits who only looks, wants something done, or a run started
REST = 5.0  # seconds in which a cluster that was slow is not waited for by those who only look
ERRORS = 5  # answers in a row that are errors, after which the connection is made anew
KNOCK = 5.0  # seconds for a connection
SILENT = {"PYTHONDONTWRITEBYTECODE": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""Without the last Ray starts a cluster of its own where the one that it was connected to is gone."""
AGAIN, AT_MOST = 10.0, 120.0  # seconds before a cluster that could not be reached is tried again, twice as long each time
CUT = b"\n[...]\n"  # in a log, where something is left out


class Unanswered(WorkspaceError):
    """The cluster was asked, and nothing is known of what it did."""


class RayExecutor:
    """An Executor. Safe to use from several threads."""

    def __init__(self, address: str):
        self._link = Link(address)
        self._address = address
        self._manifests: dict[tuple[Path, str], Manifest] = {}

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
        with suppress(Unanswered):  # then it may have begun, and whoever asks next will know
            self._link.call("start", order, patience=START)

    def is_alive(self, spec: RunSpec) -> bool:
        try:
            return self._link.call("is_alive", _name(spec), spec.run, patience=GLANCE)
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
            said: dict[str, Any] = self._link.call("look", _name(spec), sizes, patience=GLANCE) or {}
            for name, more in said.get("logs", {}).items():
                if name in LOGS:
                    _write_at(spec.folder / name, sizes[name], more)
            return Progress.model_validate_json(said["progress"])
        except (WorkspaceError, ValidationError, KeyError, OSError):
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
            for name, (content, cut) in self._link.call("finish", _name(spec)).items():
                with suppress(OSError):
                    path = spec.folder / name
                    if not cut:
                        write_atomic(path, content)
                    else:  # what was brought along while it was on, and the end of it
                        _write_at(path, path.stat().st_size if path.exists() else 0, CUT + content)

    def capacity(self, run: Run) -> int:
        try:
            return self._link.call("capacity", _wants(run), patience=GLANCE)
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
            key = (spec.data, spec.conditions)
            manifest = self._manifests.get(key)
            if manifest is None:
                names = [*data.public, *data.train, *data.sealed]
                manifest = self._manifests[key] = Manifest.of(spec.data, names)
        text, wants = spec.model_dump_json(), _wants(spec.task.run)
        return Order(
            run=spec.run,
            line=f"{platform.node()}:{spec.line}",
            name=_name(spec),
            spec=text,
            files=dict(files),
            versions=versions(),
            wants=wants,
            data=manifest,
            folder=spec.data,
        )


class Link:
    """The process that is connected to a cluster: started with the first call, and anew after it has ended or hung.

    Nobody waits here longer than they said. What is answered too late is dropped when the next call comes: answers come in the
    order of the calls.
    """

    def __init__(self, address: str):
        self._address = address
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._owed: list[float] = []
        """When each call was made whose answer has not come; the first of a process is for its start."""
        self._connecting = False
        self._errors = 0
        """In a row."""
        self._pause, self._not_before, self._rest = AGAIN, 0.0, 0.0
        self._why = ""

    def call(self, method: str, *arguments: Any, patience: float = ANSWER) -> Any:
        """What the cluster answers. Raises WorkspaceError where it cannot be reached or refuses, Unanswered where it may have
        heard.
        """
        now, sent = time.monotonic(), False
        until = now + patience
        if not self._lock.acquire(timeout=patience):
            raise WorkspaceError(f"The Ray cluster at {self._address} is busy with another call. Call again.")
        try:
            connection = self._connected()
            try:
                self._settle(connection, now if patience <= GLANCE and now < self._rest else until)
                connection.send((method, arguments))
                self._owed.append(time.monotonic())
                sent = True
                kind, content = self._answer(connection, until)
            except (OSError, EOFError) as error:
                self._end()
                failure = self._unreachable(error)
                raise Unanswered(str(failure)) if sent else failure from error
            self._errors = self._errors + 1 if kind == "error" else 0
            if self._errors == ERRORS:  # a head that was restarted refuses who knew the one before
                self._end()
            if kind == "error":
                raise WorkspaceError(f"The Ray cluster at {self._address} answered with an error: {content}. Call again.")
            return content
        finally:
            if self._owed:  # it is slow: those who only look do not each wait for it
                self._rest = time.monotonic() + REST
            self._lock.release()

    def _settle(self, connection: Connection, until: float) -> None:
        """Takes the answers that are late. Raises WorkspaceError where they are not there yet, OSError where they never will be."""
        while self._owed:
            allowed = CONNECT if self._connecting else HUNG
            if not connection.poll(max(0.0, until - time.monotonic())):
                if time.monotonic() - self._owed[0] > allowed:
                    raise OSError(f"no answer for {allowed:.0f} s")
                doing = "is being connected to" if self._connecting else "takes long to answer"
                raise WorkspaceError(f"The Ray cluster at {self._address} {doing}. Call again in a moment.")
            kind, content = connection.recv()
            self._owed.pop(0)
            if self._connecting and kind == "error":
                raise OSError(content)
            self._connecting, self._pause = False, AGAIN

    def _answer(self, connection: Connection, until: float) -> tuple[str, Any]:
        if not connection.poll(max(0.0, until - time.monotonic())):
            raise Unanswered(f"The Ray cluster at {self._address} takes long to answer. Call again in a moment.")
        kind, content = connection.recv()
        self._owed.pop(0)
        return kind, content

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
                env=os.environ | SILENT,
                cwd="/",  # Ray has all that is placed from there import from its folder
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._owed, self._connecting = [time.monotonic()], True
        return self._connection

    def _unreachable(self, error: BaseException) -> WorkspaceError:
        """The cluster is left alone for a while."""
        self._not_before = time.monotonic() + self._pause
        self._pause = min(AT_MOST, 2 * self._pause)
        self._why = (
            f"The Ray cluster at {self._address} cannot be reached: {str(error) or 'the connection was closed'}. See that it is up "
            "(ray status), and that the address is right (serve --executor ray --address ADDRESS)."
        )
        return WorkspaceError(self._why)

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None
        self._owed, self._connecting, self._errors = [], False, 0


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at an address, which Ray finds out in a minute and a half."""
    rest = address.rpartition("://")[2]
    host, _, port = rest.rstrip("/").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


def _write_at(path: Path, start: int, content: bytes) -> None:
    """So that two who brought the same piece leave it once. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, content, start)
    finally:
        os.close(descriptor)


def _name(spec: RunSpec) -> str:
    return f"{RUN}{spec.token}"


def _wants(run: Run) -> Wants:
    on_gpu = {"gpu": True, "cpu": False, "auto": None}[run.device]
    return Wants(run.gpus, on_gpu, run.cpus, dict(run.resources))
