"""What a run is on: the class of its hardware, in words that stay the same as long as scores can be compared, and which machine of
that class it is. Scores depend on how many steps a budget buys, so that is what a class holds: accelerator, CPU model, the cores
that are granted, and how many other slots were in use meanwhile.

The cores granted are those that this process may run on, and no more than a control group's quota pays for; a quota is not seen
where a container hides its control group. Two machines of one model may still differ (memory, cooling, clock): the noise of their
class includes that, and `machine` tells them apart without giving away a name.
"""

import hashlib
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp.run import nvidia

PROC, CPUS, CGROUPS = Path("/proc"), Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup")
IDENTITY = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
NOISE = re.compile(r"\((R|TM|r|tm)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b")
"""What vendors add to the name of a model: it tells nothing apart."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What numeric libraries ask how many threads to start; without it each counts the machine's cores in its own way."""


@dataclass(frozen=True)
class Granted:
    """The cores that a run may use."""

    cores: tuple[int, ...]
    """By number; empty where the system does not tell."""
    count: float
    """How many of them a quota pays for."""
    threads: int
    """How many threads make sense: one for each physical core."""
    groups: tuple[tuple[int, ...], ...] = ()
    """The cores that share a physical one; empty where the system does not tell."""

    @property
    def pinned(self) -> tuple[int, ...]:
        """The cores to hold a run to: all of them, or none where a quota grants part. Which part would be our guess, and two
        containers that guess alike would meet on the same cores while others are idle.
        """
        return self.cores if self.count == len(self.cores) else ()

    @property
    def environment(self) -> dict[str, str]:
        """Thread counts for a run's libraries."""
        return dict.fromkeys(THREADS, str(self.threads))

    @property
    def physical(self) -> list[int]:
        """A number for each physical core: that of the first in its group, else counted from 0."""
        told = self.pinned and len(self.groups) == self.threads
        return [group[0] for group in self.groups] if told else list(range(self.threads))

    def share(self, physical: Collection[int]) -> "Granted":
        """Some of the physical cores; where none can be told apart, as many threads without a place of their own."""
        if len(physical) >= self.threads:
            return self
        groups = tuple(group for group in self.groups if group[0] in physical) if self.pinned else ()
        if len(groups) != len(physical):
            return Granted(self.cores, float(len(physical)), len(physical))
        cores = tuple(sorted(core for group in groups for core in group))
        return Granted(cores, float(len(cores)), len(groups), groups)

    def __str__(self) -> str:
        return "1 core" if self.count == 1 else f"{self.count:g} cores"


def granted() -> Granted:
    """What this process, and so every run it starts, may use."""
    if sys.platform != "linux":
        count = os.cpu_count() or 1
        return Granted((), count, count)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    count = min(float(len(cores)), quota())
    groups: dict[str, list[int]] = {}
    for core in cores:
        groups.setdefault(_read(CPUS / f"cpu{core}/topology/thread_siblings_list") or str(core), []).append(core)
    threads = max(1, min(len(groups), math.floor(count)))
    return Granted(cores, round(count, 2), threads, tuple(map(tuple, groups.values())))


def quota() -> float:
    """Cores' worth of time that the control groups of this process pay for; infinite where they set no bound. The tightest of a
    group and all above it holds. Linux.
    """
    found = [math.inf]
    for line in _read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [_share(_read(place / "cpu.max").split()) for place in _upwards(CGROUPS, path)]
        elif "cpu" in controllers.split(","):
            for place in _upwards(CGROUPS / controllers, path) + _upwards(CGROUPS / "cpu", path):
                found.append(_share([_read(place / "cpu.cfs_quota_us"), _read(place / "cpu.cfs_period_us")]))
    return min(found)


def _upwards(mount: Path, path: str) -> list[Path]:
    """A group's folder and those above it. In a container the path may be one of the host's; then the topmost is its own."""
    place = mount / path.lstrip("/")
    return [folder for folder in (place, *place.parents) if folder.is_relative_to(mount)]


def _share(bound: list[str]) -> float:
    """Quota and period, in microseconds, as cores; "max" and -1 say that there is none."""
    try:
        allowed, period = float(bound[0]), float(bound[1])
    except (ValueError, IndexError):
        return math.inf
    return allowed / period if allowed > 0 and period > 0 else math.inf


def hardware(gpus: Sequence[str], on: Granted, there: Granted) -> str:
    """The class, such as "AMD EPYC 9B14, 2 cores", "AMD EPYC 9B14, 4 cores of 16" or "NVIDIA H200, 140 GB; AMD EPYC 9B14, 16
    cores". `gpus`: indices of those that the run has; `on`: its cores, of those that are `there`.
    """
    found = f"{cpu()}, {on}" + (f" of {there.count:g}" if on.count < there.count else "")
    return f"{accelerator(gpus)}; {found}" if gpus else found


def beside(others: int) -> str:
    """What is added to the class where other slots were in use meanwhile."""
    return f" beside {others} other slot{'s' if others > 1 else ''}" if others else ""


def accelerator(gpus: Sequence[str]) -> str:
    """Its name and memory, by the first: those of one machine are alike."""
    if sys.platform == "darwin":
        return f"{cpu()} GPU"
    device = nvidia.device(gpus[0])
    found = f"{device.name}, {device.memory / 2**30:.0f} GB" if device else "an unknown GPU"
    return f"{len(gpus)} x {found}" if len(gpus) > 1 else found


def cpu() -> str:
    """The model as the system names it, without what vendors add to every name."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True).stdout
    else:
        fields = dict(reversed(_fields(_read(PROC / "cpuinfo"))))  # of several processors, the first
        part = " ".join(fields[name] for name in ("CPU implementer", "CPU part") if name in fields)  # ARM has numbers, no name
        name = fields.get("model name") or (f"{platform.machine()} {part}" if part else "")
    return " ".join(NOISE.sub(" ", name).split()) or platform.machine() or "unknown CPU"


def _fields(text: str) -> list[tuple[str, str]]:
    return [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in text.splitlines()) if colon]


def machine(gpus: Sequence[str] = ()) -> str:
    """Eight digits that tell this machine from others of its class: a hash of what the system, or the GPU, says it is. A container
    made anew may count as another machine, where neither is kept.
    """
    identity = next((found for path in IDENTITY if (found := _read(path).strip())), "")
    if gpus and sys.platform == "linux" and (device := nvidia.device(gpus[0])):
        identity = device.uuid
    return hashlib.sha256(f"autoresearch-mcp {identity or platform.node()}".encode()).hexdigest()[:8]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
