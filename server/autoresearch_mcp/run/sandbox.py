"""What keeps a run away from everything but its own folder: the strongest of several levels that this machine can enforce.

bubblewrap  own mount, pid, net, ipc, uts and user namespaces: nothing exists inside but the interpreter, libraries, the folder
landlock    the same files by kernel rule, for containers without user namespaces; other processes stay visible by number
seatbelt    macOS: the same files by sandbox-exec
none        a cleared environment and a folder of its own; the run can read what the user can read

A level counts only after a self-check: a probe inside must fail to read a file outside, to open a socket and to get System V
shared memory, and must have no right but what its level leaves it. The level is recorded with every run. What the check does not
cover: side channels, and holes of the kernel that it shares with the run.
"""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp.run import users
from autoresearch_mcp.run.levels import REGISTRY, Confinement, Level
from autoresearch_mcp.run.processes import MARK
from autoresearch_mcp.sections import LEVELS
from autoresearch_mcp.task import Task, programs

OVERRIDE = "AUTORESEARCH_SANDBOX"  # names a level to use instead of the strongest; for tests and for diagnosis


@dataclass(frozen=True)
class Enforcement:
    level: str
    explanation: str
    advice: str = ""


@functools.cache
def detect() -> Enforcement:
    """The strongest level that passes its self-check here, or the one AUTORESEARCH_SANDBOX names if it passes."""
    wanted = os.environ.get(OVERRIDE)
    for level in reversed(REGISTRY.values()):
        if wanted in (None, level.name) and passes(level):
            return Enforcement(level.name, level.explanation, level.advice)
    none = REGISTRY["none"]
    return Enforcement(none.name, none.explanation, f"{wanted} does not work here")


def refusal(task: Task, level: str) -> str | None:
    """Why the task may not run at this level; None where it may."""
    if (task.run.network, task.metric.network) != ("none", "none") and level in ("seatbelt", "landlock"):
        return (
            f"the task wants a network, and this machine enforces {level}, which cannot keep a run from the rest of the "
            f"machine's network. {REGISTRY[level].advice or 'Run it on Linux, with bubblewrap'}"
        )
    if missing := [name for name, place in programs(task).items() if place is None]:
        return f"the task's commands name {', '.join(missing)}, which is not on PATH. Install it, or correct the name"
    if LEVELS.index(level) >= LEVELS.index(task.sandbox.minimum):
        return None
    return (
        f"the task demands sandbox level {task.sandbox.minimum}, and this machine enforces {level}: "
        f"{REGISTRY[level].advice}, or lower sandbox.minimum in autoresearch.toml"
    )


def wrap(level: str, command: list[str], confinement: Confinement) -> list[str]:
    """The command that runs `command` confined at `level`."""
    return REGISTRY[level].wrap(command, confinement)


PROBE = """
import ctypes, errno, os, socket, sys
seen = []
libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    if libc.shmget(0, 4096, 0o600) >= 0 or ctypes.get_errno() != errno.EPERM:
        seen.append("System V shared memory")
    rights = {name: value.split() for name, _, value in (line.partition(":") for line in open("/proc/self/status"))}
    if rights["Seccomp"] != ["2"] or int(rights["CapEff"][0], 16) & ~int(sys.argv[3]):
        seen.append("system calls or capabilities")
    if sys.argv[2] != "None" and (set(rights["Uid"] + rights["Gid"]) != {sys.argv[2]} or rights["Groups"]):
        seen.append("another user id")
try:
    open(sys.argv[1]).read()
    seen.append("a file outside")
except OSError:
    pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
    open("/sys/class/net/lo/operstate").read()
    seen.append("the network")
except OSError:
    pass
open("inside", "w").write("ok")
print(*seen, sep=", ")
"""


def passes(level: Level) -> bool:
    """The self-check, the same for every level: the probe runs at it and must have reached nothing. `none` claims nothing."""
    if level.name == "none":
        return True
    if not level.available():
        return False
    pair = users.take() if level.name == "landlock" else None
    if pair is None and level.name == "landlock" and users.possible():
        return False
    try:
        return _probe(level, pair.run if pair else None)
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        if pair is not None:
            pair.release()


def _probe(level: Level, user: int | None) -> bool:
    # The secret lies where a home or a data folder would, never below /tmp alone, which a level may replace as a whole.
    with tempfile.TemporaryDirectory(prefix="autoresearch-probe-") as outside:
        secret, folder = Path(outside) / "secret", Path(outside) / "folder"
        secret.write_text("secret")
        folder.mkdir()
        if user is not None:
            users.give(folder, user)
        rights = 0 if user is None else 1 << users.DAC_READ_SEARCH | 1 << users.DAC_OVERRIDE
        command = [sys.executable, "-I", "-c", PROBE, str(secret), str(user), str(rights)]
        command = level.wrap(command, Confinement(folder, user=user))
        result = subprocess.run(command, cwd=folder, env=environment(folder, "probe"), capture_output=True, timeout=20)
        return result.returncode == 0 and result.stdout.strip() == b"" and (folder / "inside").exists()


PACKAGES = Path(__file__).parent.parent.parent
"""Where this package lies: Python lists the folder to find it, for a scoring command of ours."""


ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""glibc gives large blocks back to the kernel as they are freed and faults every page in anew. Keeping them made training of the
cpu preset 1.25 to 1.3 times as fast here, and its evaluation 1.5 times. Unknown to other C libraries, which is no harm."""


THREADS = {"GOMP_SPINCOUNT": "50000"}
"""How long a thread of OpenMP spins for the others before it sleeps. By default, 300,000 times, it spins away the time of the very
thread that it waits for, where other programs hold the cores; too short, and threads sleep that will be wanted at once. Steps of
train.py in 10 s on two cores, idle: 92 with 2,000, 101 with 50,000, 100 by default; beside two busy loops: 41 with 2,000, 36 with
30,000, 16 by default. Unknown to other OpenMP libraries, which is no harm."""


def environment(folder: Path, mark: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A run's whole environment: nothing of the server's own but where programs and the accelerator are found. `extra` counts
    before all of it.
    """
    passed = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "SYSTEMROOT")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    own = {
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "USER": "autoresearch",  # inside a user namespace the number has no name to look up
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "VIRTUAL_ENV": sys.prefix,
        MARK: mark,
    }
    return kept | own | ALLOCATOR | THREADS | dict(extra or {})
