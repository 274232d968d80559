"""What compiling leaves, kept for later runs of the same file: so that only one of them compiles.

A cache that runs feed would carry what one has learned to the next. So what is kept comes from a run for compiling alone: in the
sandbox that runs have, in a folder made anew, without data, ended when it asks for data. What is then in its folder `run.compiled`
is taken over, file by file, out of its reach. Every run of the file begins with a copy, the first too, so that they are all alike;
none writes back, and no other file sees it. What a compiling run takes is free, as start-up is, and for the same reason.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.errors import NotAllowedError, RunFailedError
from autoresearch_mcp.files import file_sha256, sha256
from autoresearch_mcp.run import control, outputs
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.hardware import granted, hardware
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import end_orphans, end_tree
from autoresearch_mcp.task import torch_version

ENTRIES = 32  # that are kept, the latest
FILES, BYTES = 20_000, 2 << 30  # of one
POLL = 0.02
LOG_BYTES = 1 << 18


async def provide(cell: Cell, children: list[int], stopped: Callable[[], RunFailedError | None]) -> None:
    """Puts what compiling the run's file leaves where the run will look for it; makes it first where there is none. A file that
    does not come as far as asking for data has none: the run itself will say why. Raises RunFailedError, what `stopped` says.
    """
    name, entry = cell.task.run.compiled, _folder() / _key(cell)
    assert name is not None
    if cell.spec.enforcement == "none":  # nothing keeps a run there from writing to the cache itself
        return
    try:
        if not entry.is_dir():
            await _make(cell, name, entry, children, stopped)
        if entry.is_dir():
            os.utime(entry)
            await anyio.to_thread.run_sync(cell.put, entry, name)
    except (OSError, shutil.Error) as error:  # then the run compiles by itself
        print(f"what was compiled could not be kept: {error}", file=sys.stderr)


def _folder() -> Path:
    return cache_root() / "compiled"


def _key(cell: Cell) -> str:
    """Of all that compiling may depend on."""
    spec, run = cell.spec, cell.task.run
    names = (cell.task.files.editable, *cell.task.files.read_only)
    files = {name: file_sha256(path) for name in names if (path := spec.files / name).is_file()}
    where = [hardware(cell.slot.gpus, cell.slot.of(granted()), granted()), platform.python_version(), torch_version()]
    inside = [spec.enforcement, cell.task.sandbox.readable, run.network, run.packages, spec.conditions]
    said = [files, where, inside, run.command, run.compiled, run.env, run.budget_seconds, cell.task.preset]
    return sha256(json.dumps(said).encode())[:32]


class _UntilData:
    """What a run for compiling may ask for: control.Requests."""

    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def declare(self) -> dict[str, str]:
        return {}

    async def data(self) -> control.Handover:
        self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def trained(self, said: dict[str, Any]) -> None:
        raise NotAllowedError("this is a run for compiling alone")

    async def submit(self) -> float:
        raise NotAllowedError("this is a run for compiling alone")


async def _make(cell: Cell, name: str, entry: Path, children: list[int], stopped: Callable[[], RunFailedError | None]) -> None:
    command = cell.task.run.command
    assert command is not None
    log, requests = BoundedLog(cell.spec.compile_log, LOG_BYTES), _UntilData()
    child, ours = cell.start_compiling(command, log)
    children.append(child.pid)
    stop: RunFailedError | None = None
    try:
        with anyio.move_on_after(cell.task.run.startup_seconds):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child.pump)
                tasks.start_soon(control.serve, ours, requests)
                while child.returncode is None and not requests.asked.is_set() and not (stop := stopped()):  # noqa: ASYNC110
                    await anyio.sleep(POLL)
                tasks.cancel_scope.cancel()
        _end(child, children)
        if stop is not None:
            raise stop
        if requests.asked.is_set():
            await anyio.to_thread.run_sync(_keep, child.folder, name, entry)
    finally:
        _end(child, children)
        log.close()
        cell.done_with(child.folder)


def _end(child: Child, children: list[int]) -> None:
    """Ends it and all that it left: what has no parent any more has come to this process."""
    if child.returncode is None:
        end_tree(child.pid)
    child.end()
    end_orphans(children)


def _keep(folder: Path, name: str, entry: Path) -> None:
    """Takes the regular files over that a run for compiling left; what else it left stays behind. Raises OSError."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}.", dir=entry.parent) as temporary:
        target, left = Path(temporary) / "entry", BYTES
        target.mkdir()
        for place in _files(folder / name):
            copy = target / place.relative_to(folder / name)
            with suppress(OSError):  # a link, or what is no file
                outputs.take_over(folder, str(place.relative_to(folder)), copy, left)
                left -= copy.stat().st_size
        with suppress(OSError):  # another run of the file was faster
            target.rename(entry)
    for old in sorted(entry.parent.glob("[0-9a-f]*"), key=_age)[:-ENTRIES]:
        shutil.rmtree(old, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another host has removed it
        return 0.0


def _files(folder: Path) -> list[Path]:
    """Below a folder, no link followed; the first FILES."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        found += [Path(place) / name for name in sorted(names)]
        if len(found) > FILES:
            break
    return found[:FILES]
