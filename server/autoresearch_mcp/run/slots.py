"""Slots: the right to use accelerators, cores or other things for one run. Each is a file that its holder keeps locked, shared by
every workspace of the user on this machine, so that two runs never time each other's hardware; it is free again when its holder
dies.

A run takes all that it needs at once or nothing, so that no two wait for each other. Who waits leaves a ticket, a file kept locked
as well. In turn is the session that was served longest ago, and of one session the oldest ticket; who wants more than is free
keeps what is free of its kind from those behind, or a large run would never come. Waiting is by looking ten times a second.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.errors import RunFailedError, WorkspaceError
from autoresearch_mcp.files import is_locked, locked, read_json, try_lock
from autoresearch_mcp.run import gpus
from autoresearch_mcp.run.hardware import Granted, granted
from autoresearch_mcp.sections import MOST, Run

SETTING = "AUTORESEARCH_RESOURCES"  # what else there is on this machine: "simulator=2 board=1"
POLL = 0.1  # seconds
READY = ":ready"  # ends the name of a session for which something is only made ready: it comes last
KINDS = ("gpu", "core")


def slots_folder() -> Path:
    return cache_root() / "slots"


# --- what there is, and what a run needs of it ---


def resources() -> dict[str, int]:
    """What AUTORESEARCH_RESOURCES says there is besides GPUs and cores, by name."""
    found = re.findall(r"([A-Za-z_][\w-]*)=(\d+)", os.environ.get(SETTING, ""))
    return {name: min(int(count), MOST) for name, count in found if name not in KINDS}


def offered() -> dict[str, list[str]]:
    """All slots of this machine, by kind. A core is a physical one, with all its threads."""
    there = {"gpu": [f"gpu{index}" for index in gpus.indices()]}
    there["core"] = [f"core{number}" for number in granted().physical]
    return there | {name: [f"{name}.{index}" for index in range(count)] for name, count in resources().items()}


def needs(run: Run) -> dict[str, int]:
    """How many slots of each kind a run takes here. Without `cpus` a run on the CPU takes every core."""
    on_gpu = run.device == "gpu" or (run.device == "auto" and bool(gpus.indices()))
    wanted = {"gpu": run.gpus} if on_gpu else {"core": granted().threads}
    if run.cpus is not None:
        wanted["core"] = run.cpus
    return {kind: count for kind, count in (wanted | run.resources).items() if count}


def refusal(run: Run) -> str | None:
    """Why this machine will never have the slots that a run needs; None where it has."""
    there, wanted = offered(), needs(run)
    lacking = [kind for kind, count in wanted.items() if count > len(there.get(kind, []))]
    if not lacking:
        return None
    kind = lacking[0]
    count, have = wanted[kind], len(there.get(kind, []))
    if kind == "gpu" and not have:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f", CUDA_VISIBLE_DEVICES is {visible!r}"
        files = f"{len(list(gpus.DEVICES.glob('nvidia*')))} files {gpus.DEVICES}/nvidia*"
        return (
            f'the task demands a GPU (run.device = "gpu"), and this machine offers none: {files}{hidden}. '
            'Install its driver or pass the device into the container, or set run.device = "auto" or preset = "cpu" in '
            "autoresearch.toml and start another session"
        )
    if kind in KINDS:
        key, what = ("run.gpus", "GPUs") if kind == "gpu" else ("run.cpus", "physical cores")
        return f"the task wants {count} {what} a run ({key}), and this machine offers {have}. Ask for less, or run it elsewhere"
    return (
        f"the task wants {count} of {kind!r} a run (run.resources), and this machine offers {have}: say what there is in the "
        f'environment of the server, as {SETTING}="{kind}={count}"'
    )


def capacity(run: Run) -> int:
    """How many runs have room here at once."""
    there = offered()
    return min((len(there.get(kind, [])) // count for kind, count in needs(run).items()), default=granted().threads)


@dataclass(frozen=True)
class Slot:
    """What a run holds, as the names of its slots."""

    names: tuple[str, ...] = ()

    @property
    def gpus(self) -> list[str]:
        """Indices; empty for a run on the CPU."""
        return [name.removeprefix("gpu") for name in self.names if re.fullmatch(r"gpu[\w-]+", name)]

    @property
    def cores(self) -> list[int]:
        """Numbers of physical cores, as `Granted.physical` has them."""
        return [int(name.removeprefix("core")) for name in self.names if re.fullmatch(r"core\d+", name)]

    def of(self, there: Granted) -> Granted:
        """The cores that a run with this slot may use: a share where it holds some, else all."""
        return there.share(self.cores) if self.cores else there

    @property
    def is_share(self) -> bool:
        """Whether the machine has more of some kind than the run holds, so that others beside it are no exception."""
        if 0 < len(self.gpus) < len(gpus.numbers()):  # also of those that CUDA_VISIBLE_DEVICES hides: they are others' to use
            return True
        return any(0 < len(held) < len(there) for there in offered().values() if (held := set(there) & set(self.names)))

    def __str__(self) -> str:
        return self._told

    @cached_property
    def _told(self) -> str:
        """In few words: "gpu0", "gpu0 gpu1", "cpu" for every core, "cores 0-3". Asked for four times a second."""
        cores = self.cores
        whole = len(cores) == granted().threads
        told = [] if not cores else ["cpu"] if whole else [f"cores {_ranges(cores)}" if len(cores) > 1 else f"core {cores[0]}"]
        return " ".join([*(name for name in self.names if not re.fullmatch(r"core\d+", name)), *told])


def _ranges(numbers: Sequence[int]) -> str:
    """ "0-3,6" """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def only(run: Run) -> Slot | None:
    """The slot that a run will have whichever is free; None where there is a choice."""
    there, wanted = offered(), needs(run)
    if any(len(there.get(kind, [])) != count for kind, count in wanted.items()):
        return None
    return Slot(tuple(name for kind in wanted for name in there[kind]))


def is_free(folder: Path, slot: Slot) -> bool:
    return not any(is_locked(folder / f"{name}.lock") for name in slot.names)


def first() -> Slot:
    """What a run without wishes would have, if it were free."""
    there = offered()
    return Slot(tuple(name for kind, count in needs(Run()).items() for name in there[kind][:count]))


# --- taking them ---


@dataclass(frozen=True)
class Held:
    """A slot while it is ours: until its descriptors are closed, here and wherever they were inherited."""

    slot: Slot
    descriptors: list[int]

    def release(self) -> None:
        """May be called again."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@dataclass(frozen=True, order=True)
class Ticket:
    """Of one that waits."""

    served: float
    """When its session last got a slot; 0 for never."""
    since: float
    path: Path
    wanted: Mapping[str, int] = field(compare=False, default_factory=dict[str, int])

    @property
    def is_last(self) -> bool:
        """Whether something is only to be made ready."""
        return self.served == math.inf


async def take_slot(folder: Path, run: Run, session: str, given_up: Callable[[], bool]) -> Held | None:
    """Waits for what a run needs; None once `given_up` answers yes. `session`: whose turn it is to be. Raises RunFailedError where
    a folder of ours cannot be used.
    """
    wanted = needs(run)
    queue = folder / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    since = time.time()
    path = queue / f"{since:.6f}-{os.getpid()}-{id(wanted):x}.json"
    ticket = try_lock(path.with_suffix(".new"))
    assert ticket is not None, "a new ticket is ours alone"
    try:
        os.pwrite(ticket, json.dumps({"session": session, "wanted": wanted}).encode(), 0)
        path.with_suffix(".new").rename(path)  # locked before anybody can see it: else it would look like a dead one's
        there = offered()
        while True:
            if (held := await anyio.to_thread.run_sync(_look, folder, path, session, wanted, there)) is not None:
                return held
            if given_up():
                return None
            await anyio.sleep(POLL)
    except WorkspaceError as error:
        raise RunFailedError("crash", "error", f"no slot could be taken: {error}") from error
    finally:
        for name in (path, path.with_suffix(".new")):
            with contextlib.suppress(OSError):
                name.unlink()
        os.close(ticket)


def _look(folder: Path, ours: Path, session: str, wanted: Mapping[str, int], there: Mapping[str, Sequence[str]]) -> Held | None:
    """The slots for a ticket, if it is its turn and they are free of those that are `there`. One at a time of all who wait takes
    any; most looks find too few, and are no more than that.
    """

    def free_of(kind: str) -> Iterator[str]:
        return (name for name in there.get(kind, []) if not is_locked(f"{folder}/{name}.lock"))

    if any(len(list(islice(free_of(kind), count))) < count for kind, count in wanted.items()):  # whoever's turn it is
        return None
    with locked(folder / "turn.lock", "slots"):
        free = {kind: list(free_of(kind)) for kind in there}
        for ticket in waiting(folder, ours):
            chosen = {kind: free.get(kind, [])[:count] for kind, count in ticket.wanted.items()}
            enough = all(len(chosen[kind]) == count for kind, count in ticket.wanted.items())
            if ticket.path == ours:
                return _take(folder, session, [name for names in chosen.values() for name in names]) if enough else None
            for kind in ticket.wanted:
                free[kind] = free.get(kind, [])[len(chosen[kind]) :]  # also where it is not enough: what is free is kept for it
    return None


def _take(folder: Path, session: str, names: list[str]) -> Held | None:
    held = Held(Slot(tuple(names)), [])
    for name in names:
        if (descriptor := try_lock(folder / f"{name}.lock")) is None:
            held.release()
            return None
        _say_who(descriptor)
        held.descriptors.append(descriptor)
    with contextlib.suppress(OSError):
        served = _served(folder, session)
        served.parent.mkdir(exist_ok=True)
        served.touch()
    return held


def waiting(folder: Path, ours: Path | None = None) -> list[Ticket]:
    """Tickets of those that wait and live, in their turn; what the dead left is removed."""
    found: list[Ticket] = []
    for path in (folder / "queue").glob("*.json"):
        if path != ours and not is_locked(path):
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        said = read_json(path)
        if not isinstance(said, dict):
            continue  # no ticket of ours
        content = cast("dict[str, Any]", said)
        served = _served(folder, str(content.get("session")))
        last = served.stat().st_mtime if served.exists() else 0.0
        last = math.inf if str(content.get("session")).endswith(READY) else last
        found.append(Ticket(last, float(path.name.split("-")[0]), path, content.get("wanted", {})))
    return sorted(found)


def _served(folder: Path, session: str) -> Path:
    return folder / "served" / hashlib.sha256(session.encode()).hexdigest()[:16]


def _say_who(descriptor: int) -> None:
    """Writes the holder's number into its lock file, for `holders`."""
    with contextlib.suppress(OSError):  # a full disk: then its run is taken for a stranger's
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


# --- who holds them ---


_OPENED: dict[Path, str] = {}
"""Of each lock the file of a process that was found to be it: it is so again at most looks."""


def holders(folder: Path) -> set[int]:
    """The processes that hold a slot, as runs' supervisors do. No lock is tried, which would keep somebody from taking it for that
    moment: a holder is who wrote its number and still has the file open. Linux; nobody elsewhere.
    """
    return {pid for path in folder.glob("*.lock") if (pid := _holder(path))}


def _holder(path: Path) -> int:
    """Who holds a slot; 0 where nobody does, or somebody who cannot be seen."""
    try:
        pid, lock = int(path.read_text()), path.stat()
        known = _OPENED.get(path, "")
        if known.startswith(f"/proc/{pid}/") and _is(known, lock):
            return pid
        opened = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except (OSError, ValueError):
        return 0
    for name in opened:
        if _is(name, lock):
            _OPENED[path] = name
            return pid
    return 0


def _is(name: str, lock: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(name), lock)
    return False


@dataclass(frozen=True)
class Use:
    """Of one kind of slots."""

    kind: str
    there: int
    used: int
    waiting: int


def in_use(folder: Path) -> list[Use]:
    """What this machine offers, and how much of it is taken and waited for by runs."""
    tickets = [ticket for ticket in waiting(folder) if not ticket.is_last]
    return [
        Use(
            kind,
            len(names),
            sum(is_locked(folder / f"{name}.lock") for name in names),
            sum(ticket.wanted.get(kind, 0) > 0 for ticket in tickets),
        )
        for kind, names in offered().items()
        if names
    ]
