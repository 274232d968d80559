"""One run leaves all that it can behind, the next looks for each of it and finds nothing, at every level that claims so.

Not closed, and so not asked for: at `landlock`, the time when a readable file was last read; at every level, which parts of
readable files are still in memory, as the time that reading them takes tells.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from autoresearch_mcp.run import sandbox, users
from autoresearch_mcp.run.inside import lend
from autoresearch_mcp.run.levels import Confinement
from autoresearch_mcp.run.processes import become_subreaper, die_first, end_descendants

LEVELS = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]
NAME = "autoresearch-left"
pytestmark = pytest.mark.slow
COMMON = f"""
import ctypes, fcntl, os, signal, socket, sys, time

libc = ctypes.CDLL(None, use_errno=True)
NAME, outside, shared = {NAME!r}, sys.argv[1], int(sys.argv[2])
KEY, SYSV, RING = 0x61726573, {{"shm": (29, 4096), "msg": (68, None), "sem": (64, 1)}}, -4
PLACES = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/etc", os.path.dirname(os.__file__), os.path.dirname(outside)]
def sysv(kind, flags):
    number, size = SYSV[kind]
    return libc.syscall(number, KEY, *([] if size is None else [size]), flags)
def state(path):
    found = os.stat(path)
    return [found.st_mode, found.st_uid, found.st_mtime_ns, [n for n in ("user." + NAME,) if get(path, n)]]
def get(path, name):
    try:
        return os.getxattr(path, name)
    except OSError:
        return None
def attempt(action, *arguments):
    try:
        return action(*arguments)
    except OSError:
        return None
"""
LEAVES = (
    COMMON
    + """
done = []
def leave(what, action, *arguments):
    try:
        result = action(*arguments)
    except OSError:
        return
    if result is not None and result != -1:
        done.append(what)
for kind in SYSV:
    leave(kind, sysv, kind, 0o1666)
leave("mq", lambda: libc.syscall(240, NAME.encode(), os.O_CREAT | os.O_RDWR, 0o666, None))
leave("key", lambda: libc.syscall(248, b"user", NAME.encode(), b"x", 1, RING))
for place in PLACES:
    leave("file in " + place, lambda: open(os.path.join(place, NAME), "w"))
for target in (outside, os.__file__, f"/proc/self/fd/{shared}"):
    leave("mode", lambda: os.chmod(target, 0o4777) or 1)
    leave("owner", lambda: os.chown(target, os.getuid(), os.getgid()) or 1)
    leave("time", lambda: os.utime(target, (1, 1)))
    leave("attribute", lambda: os.setxattr(target, "user." + NAME, b"x") or 1)
leave("mode of a descriptor", lambda: os.fchmod(shared, 0o777) and None)
leave("attribute of a descriptor", lambda: os.setxattr(shared, "user." + NAME, b"x") or 1)
leave("hint", lambda: fcntl.fcntl(shared, 1036, (3).to_bytes(8, "little")))
leave("lease", lambda: fcntl.fcntl(shared, fcntl.F_SETLEASE, fcntl.F_RDLCK))
leave("priority", lambda: libc.setpriority(0, os.getppid(), 5) + 1 or None)
leave("limits", lambda: libc.prlimit(os.getppid(), 7, (ctypes.c_ulong * 2)(9, 9), None))
leave("core pattern", lambda: open("/proc/sys/kernel/core_pattern", "w"))
leave("abstract socket", lambda: socket.socket(socket.AF_UNIX).bind("\\0" + NAME) or 1)
leave("compiled module", lambda: open(os.path.join(os.path.dirname(os.__file__), "__pycache__", NAME + ".pyc"), "wb"))
leave("order in memory", lambda: libc.syscall(27, ctypes.addressof(ctypes.create_string_buffer(8192)) & ~4095, 4096, bytes(8)) + 1 or None)
leave("oom score of the supervisor", lambda: open(f"/proc/{os.getppid()}/oom_score_adj", "w").write("-500"))
leave("oom score", lambda: open("/proc/self/oom_score_adj", "w").write("0"))
leave("name in a folder", lambda: os.rename(os.__file__, os.__file__ + NAME))
leave("folder", lambda: os.mkdir(os.path.join(os.path.dirname(os.__file__), NAME)) or 1)
leave("io priority", lambda: libc.syscall(251, 1, os.getppid(), 3 << 13) + 1 or None)
leave("affinity", lambda: os.sched_setaffinity(os.getppid(), {0}) or 1)
signal.setitimer(signal.ITIMER_REAL, 3600)
fcntl.flock(shared, fcntl.LOCK_EX)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", [NAME, "300"], {})
    os._exit(0)
print(*done, sep=", ")
"""
)
LOOKS = (
    COMMON
    + """
found = [kind for kind in SYSV if sysv(kind, 0) != -1]
if libc.syscall(240, NAME.encode(), os.O_RDONLY, 0, None) != -1:
    found.append("mq")
if libc.syscall(249, b"user", NAME.encode(), None, 0) != -1:
    found.append("key")
found += [place for place in PLACES if os.path.exists(os.path.join(place, NAME))]
if attempt(os.getxattr, shared, "user." + NAME) or attempt(lambda: fcntl.fcntl(shared, 1035, bytes(8)).strip(bytes(1))):
    found.append("on the descriptor")
if attempt(lambda: fcntl.flock(shared, fcntl.LOCK_EX | fcntl.LOCK_NB) or True) is None:
    found.append("lock")
try:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("\\0" + NAME)
    found.append("abstract socket")
except OSError:
    pass
library = os.path.dirname(os.__file__)
found += [entry for folder in (library, os.path.join(library, "__pycache__")) for entry in attempt(os.listdir, folder) or [] if NAME in entry]
if (attempt(lambda: signal.getitimer(signal.ITIMER_REAL)) or (0, 0)) != (0.0, 0.0):
    found.append("timer")
if int(open("/proc/self/oom_score_adj").read()) != 1000:
    found.append("oom score")
if libc.syscall(27, 0, 0, bytes(8)) != -1:
    found.append("residency of pages")
for number in filter(str.isdigit, attempt(os.listdir, "/proc") or []):
    if (attempt(lambda: open(f"/proc/{number}/cmdline").read()) or "").startswith(NAME):
        found.append("process")
print(*found, sep=", ")
"""
)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autoresearch-lasting-") as name:
        yield Path(name)


def lent(level: str, path: Path, place: Path) -> IO[str]:
    """A descriptor of the file as a run gets it: under bubblewrap, opened where it is mounted read-only."""
    if level != "bubblewrap":
        return open(path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lender = Path(lend.__file__)
        command = [sys.executable, "-I", "-S", str(lender), str(theirs.fileno()), str(path)]
        (place / "lender").mkdir(exist_ok=True)
        command = sandbox.wrap(level, command, Confinement(place / "lender", [lender, path]))
        subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
        return os.fdopen(socket.recv_fds(ours, 1, 1)[1][0])


def confined(level: str, code: str, place: Path, outside: Path) -> str:
    """What one run says, started and ended as a supervisor does it."""
    pair = users.take() if level == "landlock" else None
    folder = Path(tempfile.mkdtemp(dir=place))
    (folder / "tmp").mkdir()
    if pair is not None:
        users.give(folder, pair.run)
    with lent(level, outside, place) as shared:
        confinement = Confinement(folder, user=pair.run if pair else None)
        command = [sys.executable, "-c", code, str(outside), str(shared.fileno())]
        result = subprocess.run(
            sandbox.wrap(level, command, confinement),
            cwd=folder,
            env=sandbox.environment(folder, "x"),
            pass_fds=[shared.fileno()],
            stdout=(place / "said").open("w"),
            stderr=(place / "wrong").open("w"),
            preexec_fn=die_first,
        )
    assert result.returncode == 0, (place / "wrong").read_text()
    assert end_descendants(users=[pair.run] if pair else []) == []
    if pair is not None:
        pair.release()
    shutil.rmtree(folder)
    return (place / "said").read_text().strip()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """For this test alone: else the orphans of every later test would come here and stay, for nobody collects them."""
    become_subreaper()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="what it tries is Linux's")
@pytest.mark.parametrize("level", LEVELS)
def test_the_next_run_finds_nothing(level: str, place: Path, subreaper: None):
    outside = place / "outside"
    outside.write_text("given to both")
    before = outside.stat()
    ours = os.sched_getaffinity(0), Path("/proc/self/oom_score_adj").read_text()
    done = confined(level, LEAVES, place, outside)
    assert (os.sched_getaffinity(0), Path("/proc/self/oom_score_adj").read_text()) == ours
    assert not {"core pattern", "compiled module", "oom score", "folder", "affinity"} & set(done.split(", ")), done
    assert not [process for process in psutil.process_iter(["cmdline"]) if NAME in (process.info["cmdline"] or [])]
    assert confined(level, LOOKS, place, outside) == ""
    after = outside.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
