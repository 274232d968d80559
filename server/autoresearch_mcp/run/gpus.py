"""The GPUs of this machine: which there are, and what of them a run that holds some is let at.

A GPU is known by the number of its device file, which it keeps in a container that has no other, or by the UUID that
CUDA_VISIBLE_DEVICES names it by. CUDA counts otherwise: those whose files it can open, from 0, by their places on the PCI bus.
"""

import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch_mcp.run import nvidia

DEVICES = Path("/dev")
DRIVER = Path("/proc/driver/nvidia/gpus")  # has a folder for each GPU of the machine, named after its place on the bus
ACCELERATORS = ("nvidia*", "nvidia-caps/*", "kfd", "dri/*")
"""Device files of NVIDIA and AMD accelerators."""


def indices() -> list[str]:
    """The machine's GPUs, of NVIDIA those that CUDA_VISIBLE_DEVICES lets through: as CUDA reads it, up to the first name that is
    none. Asks no driver.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ["0"]  # Metal has one
    found = numbers()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return found
    named: dict[str, None] = {}
    for name in map(str.strip, visible.split(",")):
        if name.isdecimal() and int(name) < len(found):
            named[found[int(name)]] = None
        elif re.fullmatch(r"(GPU|MIG)-[\w-]+", name):
            named[name] = None
        else:
            break
    return list(named)


def numbers() -> list[str]:
    """Of all NVIDIA GPUs that have a device file here, as CUDA counts them; those of whose place nothing is known come last."""
    names = (path.name.removeprefix("nvidia") for path in DEVICES.glob("nvidia[0-9]*"))
    there = sorted((name for name in names if name.isdecimal()), key=int)
    on_bus: list[str] = []
    for path in sorted(DRIVER.glob("*/information")):
        with suppress(OSError):
            on_bus += re.findall(r"^Device Minor:\s*(\d+)", path.read_text(errors="replace"), re.MULTILINE)
    return sorted(there, key=lambda number: on_bus.index(number) if number in on_bus else len(on_bus))


@dataclass(frozen=True)
class Reach:
    """What a run is let at that holds some GPUs, or none."""

    files: list[Path] = field(default_factory=list[Path])
    """Device files: those of other NVIDIA GPUs are not among them, where its own can be named without counting."""
    names: str = ""
    """Its GPUs, as CUDA_VISIBLE_DEVICES has them."""

    @classmethod
    def of(cls, gpus: Sequence[str]) -> "Reach":
        """`gpus`: by number or UUID."""
        if not gpus:
            return cls()
        there, devices = numbers(), [nvidia.device(gpu) for gpu in gpus]
        files = [path for pattern in ACCELERATORS for path in sorted(DEVICES.glob(pattern)) if not path.is_dir()]
        places = ",".join(str(there.index(gpu)) if gpu in there else gpu for gpu in gpus)
        if set(there) <= set(gpus) or None in devices:
            return cls(files, places)
        known = [(device.number, device.uuid) for device in devices if device is not None]
        if not all(number and uuid for number, uuid in known):
            return cls(files, places)
        others = {f"nvidia{number}" for number in there} - {f"nvidia{number}" for number, _ in known}
        return cls([path for path in files if path.name not in others], ",".join(uuid for _, uuid in known))
