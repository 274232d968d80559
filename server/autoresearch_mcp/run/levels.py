"""The levels of sandbox that there are, one class each: whether this machine has what it takes, and how a command is wrapped in it.

A level is a claim; sandbox.py tests it before anything relies on it. A new one is a class here and a name in task.LEVELS.
"""

import base64
import functools
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autoresearch_mcp.run import syscalls, users, visible
from autoresearch_mcp.run.inside import confine
from autoresearch_mcp.sections import LEVELS

# What must be readable for Python and torch to run, besides programs and libraries.
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/ssl/openssl.cnf",  # no node without it
)
SHARED_MEMORY = 1 << 30  # bytes of /dev/shm inside bubblewrap
ENTERS = " and may look up any name on the machine, because the environment lies in a folder that only root can enter"
LAUNCHER = Path(confine.__file__)
"""The one file of ours that a run can see: what applies the rules inside, before the command starts."""


@dataclass(frozen=True)
class Confinement:
    """What one process tree may reach."""

    folder: Path
    """The only writable place, and the working directory."""
    readable: Sequence[Path] = field(default=())
    """What it may read besides the interpreter and system libraries."""
    hidden: Sequence[Path] = field(default=())
    """Folders that it may not read although they lie in one that it may, as packages never may unless they are in `readable`."""
    devices: Sequence[Path] = field(default=())
    """Files of the accelerators that it has; see gpus.py."""
    processes: int = 512
    file_bytes: int = 16 << 30
    mark: int = 0
    """What tells its processes from others; see processes.mark_of."""
    user: int | None = None
    """The id it has to itself, which the folder was given to; see users.py."""
    pinned: bool = False
    """Whether it must stay on the cores that it is started on."""
    loopback: bool = False
    """Whether its processes may talk to each other over the network."""
    tell: tuple[int, int] | None = None
    """A socket over which it hands over what is asked before anything is refused, and its number; see refusals.py."""

    @property
    def shown(self) -> tuple[Path, ...]:
        return (*visible.system(), LAUNCHER, *self.readable)

    @property
    def rules(self) -> visible.Rules:
        """What it may read, and what within that it may not."""
        return visible.rules(self.shown, (*visible.package_folders(), *self.hidden))


class Level(Protocol):
    """One way to confine a run. It holds no state and raises nothing."""

    name: str
    advice: str
    """How to get a stronger level; empty where there is none."""

    @property
    def explanation(self) -> str:
        """What a run at this level can reach, for people."""
        ...

    def available(self) -> bool:
        """Whether this machine has what the level needs. Cheap, and no proof that it works."""
        ...

    def wrap(self, command: list[str], confinement: Confinement) -> list[str]:
        """The command that runs `command` so confined."""
        ...

    def calls(self, confinement: Confinement) -> dict[str, bool] | None:
        """What `syscalls.program` is told of it; None where there is no filter."""
        ...


class Nothing:
    name = "none"
    explanation = "runs are separate processes with a cleared environment, but can read what your user can read"
    advice = "install bubblewrap (Debian: apt install bubblewrap), or use Linux 5.13 or later for Landlock"

    def available(self) -> bool:
        return True

    def wrap(self, command: list[str], confinement: Confinement) -> list[str]:
        return [*_confine("none", confinement), *command] if sys.platform == "linux" else command

    def calls(self, confinement: Confinement) -> dict[str, bool] | None:
        return None


class Seatbelt:
    """macOS's sandbox-exec. Apple documents the tool as deprecated and still ships it; Chromium and Bazel rely on it."""

    name = "seatbelt"
    explanation = "runs can open only the interpreter, system libraries and their own folder; no network"
    advice = ""
    tool = Path("/usr/bin/sandbox-exec")

    def available(self) -> bool:
        return sys.platform == "darwin" and self.tool.exists()

    def wrap(self, command: list[str], confinement: Confinement) -> list[str]:
        return [str(self.tool), "-p", self._profile(confinement), *command]

    def calls(self, confinement: Confinement) -> dict[str, bool] | None:
        return None

    def _profile(self, confinement: Confinement) -> str:
        def quoted(path: object) -> str:
            return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'

        readable = ["/usr", "/bin", "/System", "/Library", "/private/var/db", "/dev", "/private/etc/localtime", "/opt/homebrew"]
        ruled = [*((Path(path), True) for path in readable), *confinement.rules]  # of several the last counts
        files = [f"({'allow' if shown else 'deny'} file-read* (subpath {quoted(path)}))" for path, shown in ruled]
        folder = quoted(confinement.folder.resolve())
        return "\n".join(
            (
                "(version 1)",
                "(deny default)",
                "(allow process-fork process-exec sysctl-read mach-lookup iokit-open signal (target same-sandbox))",
                '(allow file-read* (literal "/"))',
                *files,
                f"(allow file-read* file-write* (subpath {folder}))",
                '(allow file-write-data (literal "/dev/null"))',
            )
        )


class Landlock:
    """The kernel's own rules on files and sockets, for containers without user namespaces; see inside/confine.py."""

    name = "landlock"
    advice = "for namespaces as well, install bubblewrap (Debian: apt install bubblewrap) and allow user namespaces"

    @property
    def explanation(self) -> str:
        reach = "runs can open only the interpreter, system libraries and their own folder; no network"
        if users.possible():
            entered = users.capability_for(interpreter_files(), users.FIRST) is None
            return f"{reach}; each has a user id of its own" + ("" if entered else ENTERS)
        return reach + ("; they are root like the server, which may not give them another user id" if os.geteuid() == 0 else "")

    def available(self) -> bool:
        return confine.landlock_abi() > 0 and platform.machine() in syscalls.MACHINES

    def wrap(self, command: list[str], confinement: Confinement) -> list[str]:
        readable = [*SYSTEM_FILES, "/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version"]
        readable += [str(path) for path in visible.allowed(confinement.rules)]
        writable = [str(confinement.folder), "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
        if confinement.devices:
            readable += ["/sys", "/proc/driver/nvidia", "/proc/devices"]
            writable += [str(device) for device in confinement.devices]
        rules = [part for path in readable for part in ("--read", path)]
        rules += ["--list", sysconfig.get_path("stdlib")]  # Python finds modules by name there; packages may lie below
        rules += [part for path in writable for part in ("--write", path)]
        rules += _rights(confinement)
        return [*_confine("landlock", confinement, [*rules, *_filter(self.calls(confinement), confinement)]), *command]

    def calls(self, confinement: Confinement) -> dict[str, bool]:
        return {"unix_sockets": False, "own_files": confinement.user is not None, "pinned": confinement.pinned}


class Bubblewrap:
    """Namespaces of its own for everything, from an empty root."""

    name = "bubblewrap"
    explanation = "runs see only the interpreter, system libraries and their own folder; no network, no other process"
    advice = ""

    def available(self) -> bool:
        return sys.platform == "linux" and platform.machine() in syscalls.MACHINES and shutil.which("bwrap") is not None

    def wrap(self, command: list[str], confinement: Confinement) -> list[str]:
        return [
            *self._namespaces(confinement),
            "--",
            *_confine("none", confinement, _filter(self.calls(confinement), confinement)),
            *command,
        ]

    def calls(self, confinement: Confinement) -> dict[str, bool]:
        """The namespace holds a loopback device of its own and no other, so sockets of the internet's kind lead nowhere else."""
        return {"unix_sockets": True, "own_files": True, "pinned": confinement.pinned, "internet": confinement.loopback}

    def _namespaces(self, confinement: Confinement) -> list[str]:
        arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--hostname", "autoresearch"]
        ruled = confinement.rules
        for path, shown in ruled:
            arguments += ["--ro-bind", str(path), str(path)] if shown else ["--tmpfs", str(path)]
        for path, says in visible.links(confinement.shown, ruled).items():
            arguments += ["--symlink", says, str(path)]
        for name in SYSTEM_FILES:
            arguments += ["--ro-bind-try", name, name]
        arguments += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"]
        arguments += ["--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]
        kernel = "/sys" if confinement.devices else "/sys/devices/system"  # numbers of cores and nodes; drivers want the rest
        arguments += ["--ro-bind-try", kernel, kernel]
        for device in confinement.devices:
            arguments += ["--dev-bind", str(device), str(device)]
        folder = str(confinement.folder)
        arguments += ["--bind", folder, folder]
        arguments += [part for path, shown in ruled if not shown for part in ("--remount-ro", str(path))]
        return [*arguments, "--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", folder]


REGISTRY: dict[str, Level] = {level.name: level for level in (Nothing(), Seatbelt(), Landlock(), Bubblewrap())}
"""By name, weakest first."""
assert tuple(REGISTRY) == LEVELS, "a task can name every level, in this order"


def _confine(rules: str, confinement: Confinement, options: Sequence[str] = ()) -> list[str]:
    """Runs confine.py in front of the command: resource limits, and what the options ask for."""
    bounds = ["--processes", str(confinement.processes), "--file-bytes", str(confinement.file_bytes)]
    return [sys.executable, "-I", "-S", str(LAUNCHER), rules, *bounds, "--mark", str(confinement.mark), *options, "--"]


def _filter(calls: dict[str, bool], confinement: Confinement) -> list[str]:
    told = ["--tell", f"{confinement.tell[0]},{confinement.tell[1]}"] if confinement.tell else []
    return [*told, "--filter", _program(platform.machine(), asks=confinement.tell is not None, **calls)]


@functools.cache
def _program(machine: str, **calls: bool) -> str:
    return base64.b64encode(syscalls.program(machine, **calls)).decode()


def get_ready() -> None:
    """Works out the filters that most runs here have, before there is one that waits for it."""
    for level in REGISTRY.values():
        for confinement in (Confinement(Path("/")), Confinement(Path("/"), pinned=True)):
            if level.available() and (calls := level.calls(confinement)) is not None:
                _filter(calls, confinement)


def _rights(confinement: Confinement) -> list[str]:
    """The id, the groups of the accelerator's files, and the capability that reaching the environment takes."""
    if confinement.user is None:
        return []
    capability = users.capability_for([*interpreter_files(), confinement.folder, *confinement.readable], confinement.user)
    rights = ["--user", str(confinement.user)]
    closed = {device.stat().st_gid for device in confinement.devices if device.stat().st_mode & 0o006 != 0o006}
    rights += [part for group in sorted(closed) for part in ("--group", str(group))]
    return rights if capability is None else [*rights, "--capability", str(capability)]


def interpreter_files() -> list[Path]:
    """Some of what must be read to start: whoever reaches these reaches the rest."""
    return [visible.base_executable(), Path(sys.executable), Path(os.__file__), LAUNCHER]
