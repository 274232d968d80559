"""Starts runs on this machine: lays out the run's folder and leaves it to a detached supervisor."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.files import is_locked, read_json, try_lock, write_atomic
from autoresearch_mcp.run.limits import end_all, strays
from autoresearch_mcp.run.spec import RunSpec


def slots_folder():
    return cache_root() / "slots"


def start(spec: RunSpec, files: Mapping[str, bytes]) -> None:
    """Lays out `files` (path: content) for the run and for scoring, and starts the supervisor.

    The supervisor's lock is taken here and inherited by it, so that there is no moment at which the run looks abandoned.
    """
    shutil.rmtree(spec.folder, ignore_errors=True)
    for folder in (spec.work, spec.scoring):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
    if spec.data is not None:
        for name in spec.task.data.public:
            target = spec.work / "data" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(spec.data / name, target)
    write_atomic(spec.path, spec.model_dump_json().encode())
    lock = try_lock(spec.lock)
    assert lock is not None, "a new run's folder is ours alone"
    try:
        with open(spec.folder / "supervisor.log", "wb") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "autoresearch_mcp.run.supervisor", str(spec.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=spec.folder,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
                pass_fds=(lock,),
                start_new_session=True,
            )
    finally:
        os.close(lock)


def is_alive(spec: RunSpec) -> bool:
    """Whether the run's supervisor lives."""
    return is_locked(spec.lock)


def stop(spec: RunSpec) -> None:
    """Asks the supervisor to end the run; it escalates by itself."""
    spec.stop.touch()


def clean_up(spec: RunSpec) -> None:
    """Ends what a dead supervisor left running."""
    end_all(strays(str(spec.folder)))


def progress(spec: RunSpec) -> dict[str, object]:
    return read_json(spec.progress) or {"phase": "queued", "elapsed": 0.0, "limit": None}
