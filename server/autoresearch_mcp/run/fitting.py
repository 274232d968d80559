"""Which of a task's presets fits this machine, as their names tell it: `gpu-24` is for an NVIDIA GPU of 24 GiB; `gpu` for one of 80
or, where no name says a size, of any size; `mps` for Apple's; `cpu` for the rest, `cpu-8` where that has 8 cores.

Of the sizes the largest is taken that the smallest GPU has, for a run may be put on any of them. A card sold as 24 GB has somewhat
less, so TOLERANCE of the size will do. What fits nothing gets `cpu`: slow is better than out of memory.
"""

import platform
import re
import sys
from collections.abc import Sequence

from autoresearch_mcp.run import gpus, nvidia
from autoresearch_mcp.run.hardware import granted

TOLERANCE = 0.92  # an A10, sold as 24 GB, has 22.5 GiB
UNSIZED = 80  # GiB that `gpu` is for, beside presets with sizes


def smallest_gpu() -> float | None:
    """GiB of memory; 0 for a GPU that does not tell, None where there is none."""
    if sys.platform == "darwin":
        return None
    devices = [nvidia.device(index) for index in gpus.indices()]
    return min((device.memory / 2**30 if device else 0.0 for device in devices), default=None)


def fitting(presets: Sequence[str]) -> str | None:
    """The preset to take on this machine; None where none of them is named after machines."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return choose(presets, smallest_gpu(), apple, granted().threads)


def choose(presets: Sequence[str], gpu: float | None, apple: bool = False, cores: int = 1) -> str | None:
    """`gpu`: GiB of an NVIDIA GPU's memory, None where there is none. `cores`: of the CPU, hyperthreads not counted."""
    sizes = {size: name for name in presets if (size := size_of(name, presets)) is not None}
    if gpu is not None:
        if fit := [size for size in sizes if size * TOLERANCE <= gpu]:
            return sizes[max(fit)]
    elif apple and "mps" in presets:
        return "mps"
    named = [(int(found[1]), name) for name in presets if (found := re.fullmatch(r"cpu-(\d+)", name))]
    fit = [(count, name) for count, name in named if count <= cores]
    return max(fit)[1] if fit else "cpu" if "cpu" in presets else None


def size_of(preset: str, presets: Sequence[str]) -> int | None:
    """GiB of GPU memory that a preset of these is for; None for one that is not for NVIDIA GPUs."""
    if found := re.fullmatch(r"gpu-(\d+)", preset):
        return int(found[1])
    others = any(re.fullmatch(r"gpu-\d+", name) for name in presets)
    return (UNSIZED if others else 0) if preset == "gpu" else None
