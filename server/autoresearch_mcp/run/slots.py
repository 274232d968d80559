"""Slots: the right to use one accelerator, or the CPU, for one run. A slot is a file lock shared by every workspace of the
user on this machine, so that two runs never time each other's hardware; it is free again when its holder dies.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from autoresearch_mcp.files import try_lock
from autoresearch_mcp.task import Run


def gpu_indices() -> list[str]:
    """CUDA devices: those CUDA_VISIBLE_DEVICES names, else all of the machine's. Asks no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)


def candidates(device: str) -> list[str]:
    """Names of the slots that will do for a task's `device`."""
    gpus = [f"gpu{index}" for index in gpu_indices()]
    return gpus if gpus and device != "cpu" else ["cpu"]


async def take_slot(folder: Path, limits: Run, given_up: Callable[[], Awaitable[bool]]) -> tuple[str, int] | None:
    """Waits for a slot; returns its name and the descriptor that holds it, or None once `given_up` answers yes."""
    while True:
        for name in candidates(limits.device):
            if (descriptor := try_lock(folder / f"{name}.lock")) is not None:
                return name, descriptor
        if await given_up():
            return None
        await anyio.sleep(0.1)
