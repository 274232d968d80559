"""Slots: the right to use one accelerator, or the CPU, for one run. A slot is a file lock shared by every workspace of the
user on this machine, so that two runs never time each other's hardware; it is free again when its holder dies.

Waiting is by looking ten times a second, so nobody is served in order; with a handful of runs that costs nothing but fairness.
"""

import contextlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.files import try_lock

DEVICES = Path("/dev")


def slots_folder() -> Path:
    return cache_root() / "slots"


def gpu_indices() -> list[str]:
    """The machine's GPUs, of NVIDIA those that CUDA_VISIBLE_DEVICES lets through. Asks no driver."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ["0"]  # Metal has one
    found = sorted((path.name.removeprefix("nvidia") for path in DEVICES.glob("nvidia[0-9]*")), key=int)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return found
    return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]


def candidates(device: str) -> list[str]:
    """Names of the slots that will do for a task's `device`: auto means a GPU where there is one, else the CPU."""
    gpus = [f"gpu{index}" for index in gpu_indices()] if device != "cpu" else []
    return gpus or ([] if device == "gpu" else ["cpu"])


def refusal(device: str) -> str | None:
    """Why no slot of this machine will ever do for the task; None where one will."""
    if candidates(device):
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f", CUDA_VISIBLE_DEVICES is {visible!r}"
    files = len(list(DEVICES.glob("nvidia[0-9]*")))
    return (
        f'the task demands a GPU (run.device = "gpu"), and this machine offers none: {files} files {DEVICES}/nvidia*{hidden}. '
        'Install its driver or pass the device into the container, or set run.device = "auto" or preset = "cpu" in '
        "autoresearch.toml and start another session"
    )


async def take_slot(folder: Path, device: str, given_up: Callable[[], bool]) -> tuple[str, int] | None:
    """Waits for a slot; returns its name and the descriptor that holds it, or None once `given_up` answers yes."""
    while True:
        for name in candidates(device):
            if (descriptor := try_lock(folder / f"{name}.lock")) is not None:
                _say_who(descriptor)
                return name, descriptor
        if given_up():
            return None
        await anyio.sleep(0.1)


def _say_who(descriptor: int) -> None:
    """Writes the holder's number into its lock file, for `holders`."""
    with contextlib.suppress(OSError):  # a full disk: then its run is taken for a stranger's
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def holders(folder: Path) -> set[int]:
    """The processes that hold a slot, as runs' supervisors do. No lock is tried, which would keep somebody from taking it for that
    moment: a holder is who wrote its number and still has the file open. Linux; nobody elsewhere.
    """
    return {pid for path in folder.glob("*.lock") if (pid := _holder(path))}


def _holder(path: Path) -> int:
    """Who holds a slot; 0 where nobody does, or somebody who cannot be seen."""
    try:
        pid = int(path.read_text())
        opened = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except (OSError, ValueError):
        return 0
    for name in opened:
        with contextlib.suppress(OSError):
            if os.path.samefile(name, path):
                return pid
    return 0
