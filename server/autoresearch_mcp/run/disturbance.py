"""Whether a run was disturbed: whether others took compute from it while it trained or was scored. A disturbed run is not evidence.

Three takers are watched: other processes on the cores granted (foreign.py), the host of a virtual machine (steal), and, on a GPU,
other processes there or a power supply that slows the card down. Each is an average over the phase, since what a run loses is
their sum.

A mark is set from QUIET of the cores granted, and never below LEAST of a core: where threads wait for each other, a tenth of one
core is up to a tenth of all steps, about as much as the smallest change that is worth a night; a machine at rest takes a fiftieth.
The figures are reasoned, not measured. AUTORESEARCH_QUIET names another share, for a machine that is never that quiet.

Nothing of the run's own counts, neither its steps a second nor its memory nor its heat: a run that sees that it does badly must
find no way to have its score set aside. So throttling by heat and by the card's own power limit is not watched, which a run brings
about; and a run that ends early is measured over SPAN all the same, for it could end when others happen to be busy. Steal is the
one figure that depends on the run at all: the host takes nothing from cores that nobody wants.

What it costs: one look at all processes a second; less often, but every LONGEST seconds, where that takes more than a hundredth of
a core for all slots in use together.
"""

import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch_mcp.run import nvidia, slots
from autoresearch_mcp.run.foreign import TICKS, Foreign
from autoresearch_mcp.run.hardware import Granted, beside, granted, hardware, machine
from autoresearch_mcp.run.slots import Slot

SETTING = "AUTORESEARCH_QUIET"
QUIET, LEAST = 0.05, 0.1  # share of the cores granted; of one core
WATCHED = {"training": "during training", "evaluation": "during scoring"}  # by phase of the clock, in words
SPAN, SHORTEST = 30.0, 5.0  # seconds that training is measured over at least, where the budget is as long; and scoring
INTERVAL, SHARE = 1.0, 0.01  # seconds between looks; share of a core that looking may take, for all slots in use
LONGEST = 5.0  # seconds between looks, whatever they take
BRIEF = 0.1  # seconds of a phase that is not watched, which are not worth a look: they count for the next
INITIAL = "pid:[4026531836]"  # the first namespace of processes, whose numbers are those that a driver tells


def quiet() -> float:
    """The share of the cores granted that others may take."""
    try:
        return float(os.environ.get(SETTING, QUIET))
    except ValueError:
        return QUIET


def stolen(cores: tuple[int, ...]) -> float:
    """Seconds so far that the host of this virtual machine gave others while these cores were wanted. Linux."""
    names = {f"cpu{core}" for core in cores}
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
        return sum(int(row[8]) for row in rows if row[0] in names) / TICKS
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass
class Taken:
    """What others took in one phase; all in seconds."""

    seconds: float = 0.0
    by: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    """By processes on the cores granted, by name."""
    stolen: float = 0.0
    gpu: float = 0.0
    braked: float = 0.0

    def said(self, when: str, on: Granted, span: float) -> list[str]:
        """What of it is worth a mark, in words; `span` are the seconds that it is measured over at least."""
        over = max(self.seconds, span)
        limit = max(LEAST, quiet() * on.count)
        found: list[str] = []
        if (taken := sum(self.by.values()) / over) > limit:
            most = max(self.by, key=self.by.__getitem__)
            found.append(f"other processes (most: {most}) took {taken:.2f} of {on} {when}")
        if self.stolen / over > limit:
            found.append(f"the host of this virtual machine took {self.stolen / over:.2f} of {on} {when}")
        if self.gpu / over > quiet():
            found.append(f"other processes used {self.gpu / over:.0%} of the GPU {when}")
        if self.braked / over > quiet():
            found.append(f"the GPU was slowed by its power supply for {self.braked:.0f} s {when}")
        return found


class Watch:
    """Watches this process's machine from when it is started. Every look counts for the phase that it is told, which has been on
    since the look before.
    """

    def __init__(self, granted: Granted, budget: float = SPAN):
        self._there = self._granted = granted
        self._span = {"training": min(SPAN, budget), "evaluation": SHORTEST}
        self._phases = {phase: Taken() for phase in WATCHED}
        self._slot: Slot | None = None
        self._hardware = self._machine = ""
        self._beside = 0
        self._foreign: Foreign | None = None
        self.gpus: list[nvidia.Device] = []
        """Those of the slot that tell of themselves."""
        self._at = self._next = self._stolen = 0.0

    def start(self, slot: Slot) -> None:
        """From when the slot is held: what was before is no run's concern."""
        self._slot, self._granted = slot, slot.of(self._there)
        self._hardware, self._machine = hardware(slot.gpus, self._granted, self._there), machine(slot.gpus)
        if sys.platform == "linux":
            self._foreign = Foreign(os.getpid(), self._granted.cores)
            self.gpus = [device for index in slot.gpus if (device := nvidia.device(index))]
        self._at, self._stolen = time.monotonic(), stolen(self._granted.cores)

    @property
    def conditions(self) -> dict[str, str]:
        """What a run's row says; nothing where it never had a slot. Nothing in it depends on a score."""
        if self._slot is None:
            return {}
        found = self._hardware + ("" if self._slot.is_share else beside(self._beside))
        return {"hardware": found, "machine": self._machine, "disturbed": "; ".join(self.disturbed)}

    @property
    def disturbed(self) -> list[str]:
        """What is worth a mark, in words."""
        phases = [taken.said(WATCHED[phase], self._granted, self._span[phase]) for phase, taken in self._phases.items()]
        return [text for said in phases for text in said]

    def look_sometimes(self, phase: str) -> None:
        """Looks, if the last time is long enough ago."""
        if time.monotonic() >= self._next:
            self.look(phase)

    def look(self, phase: str) -> None:
        if self._slot is None:
            return
        began = time.monotonic()
        if phase not in self._phases and began - self._at < BRIEF:
            return
        others = slots.holders(slots.slots_folder()) - {os.getpid()}
        by = self._foreign.look(others) if self._foreign else {}
        taken, before, passed = stolen(self._granted.cores), self._stolen, began - self._at
        self._stolen, self._at = taken, began
        if phase in self._phases:
            self._beside = max(self._beside, len(others))
            found = self._phases[phase]
            found.seconds += passed
            for name, seconds in by.items():
                found.by[name] += seconds
            found.stolen += taken - before
            for gpu in self.gpus:
                self._look_at_gpu(gpu, found, passed / len(self.gpus))
        now = time.monotonic()
        self._next = now + min(LONGEST, max(INTERVAL, (now - began) / SHARE * (1 + len(others))))

    def _look_at_gpu(self, gpu: nvidia.Device, found: Taken, passed: float) -> None:
        """Others on the GPU count where their numbers are those that are seen here, which in a container they are not."""
        found.braked += passed if gpu.power_is_cut else 0.0
        if self._foreign and os.readlink("/proc/self/ns/pid") == INITIAL:
            found.gpu += passed * sum(share for pid, share in gpu.used_by(passed).items() if self._foreign.was_foreign(pid))


def load(seconds: float = INTERVAL) -> tuple[str, list[str]]:
    """The class of hardware that a run would be on now, and what would disturb it, in words. Takes so many seconds."""
    watch = Watch(granted(), budget=seconds)
    watch.start(slots.first())
    time.sleep(seconds)
    watch.look("training")
    return watch.conditions["hardware"], [said.removesuffix(f" {WATCHED['training']}") for said in watch.disturbed]
