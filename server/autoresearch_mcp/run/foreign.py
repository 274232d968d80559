"""The CPU time that processes take which are not ours: neither the run's, its scoring's and its supervisor's, nor those of other
slots' runs, nor of this program. Linux.

A run must have no way to make itself look disturbed, or it could have an unlucky score set aside. So nothing is found by taking
what is ours away from a total, where what is hidden from one side shows on the other. Only what is surely another's counts:

- a process whose line of parents, all of them seen in one look, leads to the first process without meeting us or the kernel. What
  a run starts stays below its supervisor whatever it forks (processes.py); who stands in a broken line is not counted.
- its time in its own code alone. In the kernel the run could have it work: make it reclaim memory, or wait for interrupts.
- at ordinary priority or above. What gives way to a run (nice, SCHED_IDLE) would take the cores of one that sleeps on purpose.
- never the kernel's own threads, or the helpers that they start: a run has them write to disk, page, and handle crashes.

The price is what is missed: load that lives in the kernel (copying files, networking), niced load although it shares caches and
memory, and whatever cannot be seen from here (another container, another user under hidepid). What is not closed: a program that
works whenever others write files or start processes (an indexer, a virus scanner) can be made to work by a run, and one in a
control group of low weight by a run that sleeps.

A process that lives between two looks is counted when its parent collects it; one that nobody collects is missed. One that has
lived long and is collected by another than its parent is taken for news, but never for more than all cores can do meanwhile.
"""

import os
import time
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from autoresearch_mcp.text import plain

PF_KTHREAD, SCHED_IDLE = 0x200000, 5  # see proc(5) and sched(7)
OWN_NAMES = ("autoresearch-mcp", "autoresearch_mcp")
TICKS = os.sysconf("SC_CLK_TCK")  # a second
REMEMBERED = 60 * TICKS  # for how long a number is taken for the kernel's own thread that had it


class Process(NamedTuple):
    name: str
    parent: int
    born: int
    """In ticks since the machine started."""
    spent: int
    """Ticks in its own code, and in that of children which it has collected."""
    core: int
    running: bool
    kernel: bool
    gives_way: bool


def read(pid: int | str) -> Process | None:
    """A process, or a thread as "pid/task/thread", by its stat file; None where it is gone. The fields are those of proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b")")
        rest = after.split()
        return Process(
            name=before.partition(b"(")[2].decode(errors="replace"),
            parent=int(rest[1]),
            born=int(rest[19]),
            spent=int(rest[11]) + int(rest[13]),
            core=int(rest[36]),
            running=rest[0] == b"R",
            kernel=bool(int(rest[6]) & PF_KTHREAD),
            gives_way=int(rest[16]) > 0 or int(rest[38]) == SCHED_IDLE,
        )
    except (OSError, ValueError, IndexError):
        return None


class Lines:
    """Who descends from whom, in one look."""

    def __init__(self, seen: dict[int, Process]):
        self._seen = seen

    def of(self, pid: int) -> list[int] | None:
        """A process, its parent and so on up to the first one; None where the line is broken, or comes from the kernel."""
        line: list[int] = []
        born = None
        while pid:
            process = self._seen.get(pid)
            if process is None or process.kernel or (born is not None and process.born > born):
                return None  # the last: the parent's number is another's by now
            line.append(pid)
            born, pid = process.born, process.parent
        return line


class Foreign:
    """Looks at all processes from time to time, and says what others took since the look before."""

    def __init__(self, us: int, cores: Collection[int]):
        self._us = us
        self._cores = frozenset(cores) if len(cores) < (os.cpu_count() or 1) else None  # None: wherever it runs, it is on ours
        self._seen: dict[int, Process] = {}
        self._family: set[int] = set()
        self._foreign: set[int] = set()
        self._kernel: set[int] = set()
        """Numbers of its threads, mostly the half of all there is; they are not looked at again and again."""
        self._at = self._asked = 0
        self.look()

    def look(self, others: Collection[int] = ()) -> dict[str, float]:
        """Seconds that foreign programs took of our cores, by name. `others` are the supervisors of other slots' runs."""
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
        seen = self._all(now)
        lines, excluded, collected = Lines(seen), {self._us, *others}, self._collected(seen)
        taken, family, foreign = defaultdict[str, float](float), set[int](), set[int]()
        for pid, process in seen.items():
            line = lines.of(pid)
            if line is None or self._us in line:
                family.add(pid)  # or of nobody knows whom, which is taken for the same
            elif excluded.isdisjoint(line):
                foreign.add(pid)
                ticks = 0 if process.gives_way else self._since(pid, process) - collected[pid]
                if ticks > 0 and not _is_this_program(pid):
                    taken[plain(process.name)] += ticks / TICKS * self._on_our_cores(pid, process)
        possible = (now - self._at) / TICKS * (os.cpu_count() or 1)
        kept = min(1.0, possible / total) if (total := sum(taken.values())) else 0.0
        self._seen, self._family, self._foreign, self._at = seen, family, foreign, now
        return {name: seconds * kept for name, seconds in taken.items()}

    def _all(self, now: int) -> dict[int, Process]:
        if now - self._asked > REMEMBERED:
            self._kernel, self._asked = set(), now
        names = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in self._kernel]
        seen = {int(name): found for name in names if (found := read(name))}
        self._kernel |= {pid for pid, process in seen.items() if process.kernel}
        return seen

    def was_foreign(self, pid: int) -> bool:
        """Whether a process was another's at the last look."""
        return pid in self._foreign

    def _since(self, pid: int, process: Process) -> int:
        """Ticks since the last look; none of a process that is older and was not seen then."""
        before = self._seen.get(pid)
        if before is not None and _same(before, process):
            return process.spent - before.spent
        return process.spent if process.born >= self._at else 0

    def _collected(self, seen: dict[int, Process]) -> dict[int, int]:
        """Ticks known at the last look of processes that have ended since, by who collected them, as far as their lines tell: there
        they appear again, and are no news.
        """
        ticks = defaultdict[int, int](int)
        for pid, process in self._seen.items():
            if pid not in self._family and not _same(process, seen.get(pid)):
                parent = process.parent
                while (before := self._seen.get(parent)) and not _same(before, seen.get(parent)):
                    parent = before.parent
                ticks[parent] += process.spent
        return ticks

    def _on_our_cores(self, pid: int, process: Process) -> float:
        """The share of a process that runs on the cores granted, by where its running threads are at this moment."""
        if self._cores is None:
            return 1.0
        try:
            threads = [read(f"{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            threads = []
        cores = [thread.core for thread in threads if thread and thread.running] or [process.core]
        return sum(core in self._cores for core in cores) / len(cores)


def _same(one: Process, other: Process | None) -> bool:
    """Whether two looks at a number met one process."""
    return other is not None and one.born == other.born


def _is_this_program(pid: int) -> bool:
    """Whether it is a server, a command or a host of ours: what a run prints and asks for is work for them."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).decode(errors="replace").split("\0")[:5]
    except OSError:
        return True  # gone, or not to be asked
    return any(os.path.basename(word).startswith(OWN_NAMES) for word in words)
