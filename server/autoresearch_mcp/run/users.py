"""User ids of runs, where the server is root: files, processes, limits and signals of everybody else are then out of a run's reach
by ordinary permissions, and every process of it can be found by its id, whatever it forks or forgets.

Ids come in pairs, one for the run and one for its scoring, from the range that systemd keeps for ids that nobody owns. A pair is
taken while a socket of its name is bound, which the kernel undoes when the supervisor dies, and while no process has either id: so
what a run might have left behind is never met by the next. The folder of a run belongs to its id, which is how a later session
knows it. What needs more than a container gives (a cgroup, a namespace) is not used.
"""

import functools
import os
import pwd
import random
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp.run.status import processes, read_status

FIRST, LAST = 61184, 65519  # https://systemd.io/UIDS-GIDS/
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, KILL, SETGID, SETUID = 0, 1, 2, 5, 6, 7  # capabilities
NEEDED = (CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID)  # all of them a container's default


@dataclass(frozen=True)
class Pair:
    run: int
    scoring: int
    held: socket.socket

    def release(self) -> None:
        self.held.close()


@functools.cache
def possible() -> bool:
    """Whether this process can give a run an id of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    mapped = any(first <= FIRST and first + count > LAST for first, count in _mapped())
    return mapped and all(permitted(capability) for capability in NEEDED)


def permitted(capability: int) -> bool:
    """Whether this process has a capability."""
    return bool(int(read_status("self").get("CapEff", "0"), 16) >> capability & 1)


def take() -> Pair | None:
    """A pair that nobody has and nothing runs under; None where there is none left, or none is possible."""
    if not possible():
        return None
    first = random.randrange(FIRST, LAST, 2)  # so that two runs in a row hardly ever have the same
    for id in (*range(first, LAST, 2), *range(FIRST, first, 2)):
        if _has_name(id) or _has_name(id + 1):
            continue
        try:
            held = _bind(id)
        except OSError:
            return None
        if held is None:
            continue
        if not processes([id, id + 1]):
            return Pair(id, id + 1, held)
        held.close()
    return None


def hold(users: Sequence[int]) -> Pair | None:
    """The pair that these ids are, for whoever ends what an abandoned run left; None where another run has it by now."""
    first = min(users) - (min(users) - FIRST) % 2
    held = _bind(first)
    return Pair(first, first + 1, held) if held else None


def _bind(id: int) -> socket.socket | None:
    """Takes the name that stands for an id, and its partner's; None where somebody has it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0autoresearch-user-{id}")
    except OSError:
        held.close()
        return None
    return held


def give(folder: Path, user: int) -> None:
    """Makes a folder and all in it the user's. To be called before anything runs there."""
    os.chown(folder, user, user, follow_symlinks=False)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(place) / name, user, user, follow_symlinks=False)


def owners(folders: Iterable[Path]) -> list[int]:
    """The ids of runs that folders were given to."""
    found: list[int] = []
    for folder in folders:
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        if FIRST <= owner <= LAST:
            found.append(owner)
    return found


def capability_for(paths: Iterable[Path], user: int) -> int | None:
    """The capability that `user` needs to reach the paths, or none: an environment may lie below a home that only root can enter.
    It opens no more than the sandbox lists, but with it every name on the machine can be asked after.
    """
    if all(_reaches(place, user) for path in paths for place in (path.absolute(), path.resolve())):
        return None
    return DAC_READ_SEARCH if permitted(DAC_READ_SEARCH) else DAC_OVERRIDE


def _reaches(path: Path, user: int) -> bool:
    """Whether anybody, or the user as the owner, may enter every folder on the way and read what is there."""
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError:
            return True  # what is not there needs no right
        bits = status.st_mode >> 6 if status.st_uid == user else status.st_mode
        if not bits & (4 if place == path else 1):
            return False
    return True


def _mapped() -> list[tuple[int, int]]:
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return [(int(line.split()[0]), int(line.split()[2])) for line in lines]


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True
