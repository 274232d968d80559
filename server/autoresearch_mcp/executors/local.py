"""Runs on this machine: each is left to a detached process, its host, that needs neither server nor client."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import is_locked, try_lock, write_atomic
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import outputs, users
from autoresearch_mcp.run.processes import end_strays
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.spec import RunSpec

HOST = "autoresearch_mcp.executors.host"


class LocalExecutor:
    """An Executor. Whether a run is alive is a lock on a file, which its host holds and the kernel takes from it when it dies."""

    def start(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        """The host's lock is taken here, before anybody can know of the run, and inherited by it: so there is no moment at which
        the run looks abandoned.
        """
        if self.is_alive(spec):
            return
        try:
            outputs.remove(spec.folder)
            outputs.remove(spec.home)
            lock = try_lock(spec.lock)
            assert lock is not None, "a new run's folder is ours alone"
            try:
                self._lay_out(spec, files)
                self._start_host(spec, lock)
            finally:
                os.close(lock)
        except OSError as error:
            raise WorkspaceError(
                f"Run {spec.run} could not be started in {spec.folder}: {error}. Free disk space or mend that, then call "
                "run_experiment again."
            ) from error

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
        owners = users.owners((spec.work, spec.scoring))
        pair = users.hold(owners) if owners else None
        try:
            left = end_strays(str(spec.home), spec.mark, owners if pair else [])
        finally:
            if pair is not None:
                pair.release()
        if left:  # its folders stay, for they say whose processes these are: the next call tries again
            with suppress(OSError), open(spec.host_log, "a") as log:
                log.write(f"processes of the run could not be ended and may hold the machine: {', '.join(left[:8])}\n")
            return
        outputs.remove_all(spec)

    def _lay_out(self, spec: RunSpec, files: Mapping[str, bytes]) -> None:
        for folder in (spec.files, spec.work, spec.scoring):
            folder.mkdir(parents=True)
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if spec.data is not None:
            for name in spec.task.data.public:
                target = spec.work / "data" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(spec.data / name, target)
        write_atomic(spec.path, spec.model_dump_json().encode())

    def _start_host(self, spec: RunSpec, lock: int) -> None:
        with open(spec.host_log, "ab") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", HOST, str(spec.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=spec.folder,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                pass_fds=(lock,),
                start_new_session=True,
            )
