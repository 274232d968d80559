"""Runs on this machine: each is left to a detached process, its host, that needs neither server nor client.

Between runs hosts may wait that have made ready what a run begins with (`get_ready`, ready.py).
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex

from pydantic import ValidationError

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors import nursery
from autoresearch_mcp.executors.ready import Ready, Waiting
from autoresearch_mcp.files import is_locked, sha256, try_lock, write_atomic
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import outputs, places, slots, users
from autoresearch_mcp.run.processes import end_strays
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.sections import Run

HOST = "autoresearch_mcp.executors.host"
HOSTS = frozenset((HOST, nursery.PROGRAM))
"""Of these every host of a run has one in its command line."""
NURSERY = nursery.Nursery()
READY = Ready()
IDLE = 900.0  # seconds that a host waits for a run
OF_ONE_RUN = {"run", "token", "experiment", "tag", "seed", "folder", "place", "ledger", "earlier"}
LIMITS = ("startup_seconds", "check_seconds", "evaluate_seconds")
"""Of a run: they follow from the session's baseline, and only the clock asks for them."""


class LocalExecutor:
    """An Executor. Whether a run is alive is a lock on a file, which its host holds and the kernel takes from it when it dies."""

    def get_ready(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        if not spec.task.run.preload or "{seed}" in " ".join(spec.task.metric.command):
            return
        slot = slots.only(spec.task.run)  # None: which of several it will be is not known before
        if slot is None or not slots.is_free(slots.slots_folder(), slot):  # a host's start would take time from the run that is on
            return
        kind = _kind(spec, files)
        if not READY.make_room(kind):
            return
        self.sweep("ready")
        token = token_hex(8)
        folder = places.root() / f"ready-{token}"
        draft = spec.model_copy(update={"token": token, "folder": folder, "place": None})
        try:
            lock = try_lock(draft.lock)
            assert lock is not None, "a new folder is ours alone"
            try:
                _lay_out(draft, files)
                ours, theirs = socket.socketpair()
                with theirs:
                    READY.add(Waiting(kind, draft, _start_host(draft, lock, theirs.fileno()), ours, self._remove))
            finally:
                os.close(lock)
        except OSError:  # the run itself will say so
            outputs.remove(folder)

    def start(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        """The host's lock is taken here, before anybody can know of the run, and inherited by it: so there is no moment at which
        the run looks abandoned.
        """
        if self.is_alive(spec):
            return
        if self._give(spec, files):
            return
        try:
            outputs.remove(spec.folder)
            outputs.remove(spec.home)
            lock = try_lock(spec.lock)
            assert lock is not None, "a new run's folder is ours alone"
            try:
                _lay_out(spec, files)
                if not NURSERY.start(spec, lock):
                    _start_host(spec, lock)
            finally:
                os.close(lock)
        except OSError as error:
            raise WorkspaceError(
                f"Run {spec.run} could not be started in {spec.folder}: {error}. Free disk space or mend that, then call "
                "run_experiment again."
            ) from error

    def _give(self, spec: RunSpec, files: Mapping[str, bytes]) -> bool:
        """Gives the run to the host that waits for one like it: whether it is that host's now."""
        name = spec.task.files.editable
        kind = _kind(spec, {path: content for path, content in files.items() if path != name})
        while (waiting := READY.take(kind)) is not None:
            here = spec.model_copy(update={"place": waiting.draft.folder})
            with suppress(OSError):
                outputs.remove(here.folder)
                lock = try_lock(here.lock)
                assert lock is not None, "a new run's folder is ours alone"
                try:
                    _write(here, {name: files[name]})
                    write_atomic(here.path, here.model_dump_json().encode(), lasting=False)
                    if waiting.give(here.folder, lock):
                        return True
                finally:
                    os.close(lock)
            waiting.end()
        return False

    def _remove(self, draft: RunSpec) -> None:
        """What a host leaves that has ended without a run."""
        self.clean_up(draft)
        outputs.remove(draft.folder)

    def is_alive(self, spec: RunSpec) -> bool:
        return is_locked(spec.lock)

    def stop(self, spec: RunSpec) -> None:
        if not self.is_alive(spec):
            return
        try:
            spec.stop.touch()
        except OSError as error:
            pid = self.progress(spec).pid
            raise WorkspaceError(
                f"Run {spec.run} cannot be asked to stop: {error}. Free disk space and try again"
                + (f", or end it by hand: kill {pid}." if pid else ".")
            ) from error

    def progress(self, spec: RunSpec) -> Progress:
        return Progress.read(spec.progress)

    def collect(self, spec: RunSpec) -> RunEnded | None:
        try:
            ended = RunEnded.model_validate_json(spec.ended.read_bytes())
        except (OSError, ValidationError):
            return None
        return ended if ended.run == spec.run else None

    def clean_up(self, spec: RunSpec) -> None:
        if self.is_alive(spec):
            return
        if left := self.end_strays(spec):  # its folders stay, for they say whose processes these are: the next call tries again
            with suppress(OSError), open(spec.host_log, "a") as log:
                log.write(f"processes of the run could not be ended and may hold the machine: {', '.join(left[:8])}\n")
            return
        outputs.remove_all(spec)

    def end_strays(self, spec: RunSpec) -> list[str]:
        """Ends what is left of a dead run. Returns what could not be ended."""
        if spec.cleared.exists():
            return []
        owners = users.owners((spec.work, spec.scoring))
        pair = users.hold(owners) if owners else None
        try:
            return end_strays(str(spec.home), spec.mark, owners if pair else [])
        finally:
            if pair is not None:
                pair.release()

    def capacity(self, run: Run) -> int:
        return slots.capacity(run)

    def in_use(self) -> list[slots.Use]:
        return slots.in_use(slots.slots_folder())

    def sweep(self, kind: str) -> None:
        """Removes what hosts left that were killed, in folders of their own (`trial`, `ready` or `ray`)."""
        for folder in places.root().glob(f"{kind}-*"):
            spec = RunSpec.read(folder)
            if spec is not None and not self.is_alive(spec) and not (spec.carrier and is_locked(spec.carrier)):
                self.clean_up(spec)
                outputs.remove(folder)


def _kind(spec: RunSpec, files: Mapping[str, bytes]) -> str:
    """Hash of all that what is made ready depends on: what differs between runs of one session is not in it."""
    task = spec.task.model_copy(update={"run": spec.task.run.model_copy(update=dict.fromkeys(LIMITS, 0.0))})
    same = spec.model_copy(update={"task": task}).model_dump_json(exclude=OF_ONE_RUN)
    return sha256(json.dumps([same, {path: sha256(content) for path, content in sorted(files.items())}]).encode())


def _lay_out(spec: RunSpec, files: Mapping[str, bytes]) -> None:
    for folder in (spec.files, spec.work, spec.scoring):
        folder.mkdir(parents=True)
    _write(spec, files)
    if spec.data is not None:
        for name in spec.task.data.public:
            target = spec.work / "data" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(spec.data / name, target)
    write_atomic(spec.path, spec.model_dump_json().encode(), lasting=False)


def _write(spec: RunSpec, files: Mapping[str, bytes]) -> None:
    for folder in (spec.files, spec.work, spec.scoring):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _start_host(spec: RunSpec, lock: int, *sockets: int) -> subprocess.Popen[bytes]:
    with open(spec.host_log, "ab") as log:
        words = [str(spec.folder), *(str(word) for one in sockets for word in (one, IDLE))]
        return nursery.begin([HOST, *words], log, spec.folder, lock, *sockets)
