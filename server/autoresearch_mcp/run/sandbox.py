"""What keeps a run away from everything but its own folder: the strongest of several levels that this machine can enforce.

bubblewrap  own mount, pid, net, ipc, uts and user namespaces: nothing exists inside but the interpreter, libraries, the folder
landlock    the same files by kernel rule, for containers without user namespaces; other processes stay visible by number
seatbelt    macOS: the same files by sandbox-exec
none        a cleared environment and a folder of its own; the run can read what the user can read

A level counts only after a self-check: a probe inside must fail to read a file outside and to open a socket. The level is
recorded with every run.
"""

import functools
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch_mcp.run.limits import MARK
from autoresearch_mcp.task import LEVELS, Task

OVERRIDE = "AUTORESEARCH_SANDBOX"  # names a level to use instead of the strongest; for tests and for diagnosis
SHARED_MEMORY = 1 << 30  # bytes of /dev/shm inside bubblewrap


@dataclass(frozen=True)
class Enforcement:
    level: str
    explanation: str
    advice: str = ""


@dataclass(frozen=True)
class Confinement:
    """What one process tree may reach."""

    folder: Path
    """The only writable place, and the working directory."""
    readable: Sequence[Path] = field(default=())
    """What it may read besides the interpreter and system libraries."""
    gpu: bool = False
    processes: int = 512
    file_bytes: int = 16 << 30


EXPLANATIONS = {
    "bubblewrap": "runs see only the interpreter, system libraries and their own folder; no network, no other process",
    "landlock": "runs can open only the interpreter, system libraries and their own folder; no network",
    "seatbelt": "runs can open only the interpreter, system libraries and their own folder; no network",
    "none": "runs are separate processes with a cleared environment, but can read what your user can read",
}
ADVICE = {
    "bubblewrap": "",
    "landlock": "for namespaces as well, install bubblewrap (Debian: apt install bubblewrap) and allow user namespaces",
    "seatbelt": "",
    "none": "install bubblewrap (Debian: apt install bubblewrap), or use Linux 5.13 or later for Landlock",
}


@functools.cache
def detect() -> Enforcement:
    """The strongest level that passes its self-check here, or the one AUTORESEARCH_SANDBOX names if it passes."""
    wanted = os.environ.get(OVERRIDE)
    for level in reversed(LEVELS):
        if (wanted is None or level == wanted) and _works(level):
            return Enforcement(level, EXPLANATIONS[level], ADVICE[level])
    return Enforcement("none", EXPLANATIONS["none"], f"{wanted} does not work here" if wanted else ADVICE["none"])


def refusal(task: Task, level: str) -> str | None:
    """Why the task may not run at this level; None where it may."""
    if LEVELS.index(level) >= LEVELS.index(task.sandbox.minimum):
        return None
    return (
        f"the task demands sandbox level {task.sandbox.minimum}, and this machine enforces {level}: "
        f"{ADVICE[level]}, or lower sandbox.minimum in autoresearch.toml"
    )


PROBE = """
import os, socket, sys
seen = []
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


def _works(level: str) -> bool:
    """Runs the probe at this level."""
    if level == "none":
        return True
    if not _available(level):
        return False
    # The secret lies where a home or a data folder would, never below /tmp alone, which a level may replace as a whole.
    with tempfile.TemporaryDirectory(prefix="autoresearch-probe-") as outside:
        secret, folder = Path(outside) / "secret", Path(outside) / "folder"
        secret.write_text("secret")
        folder.mkdir()
        command = wrap(level, [sys.executable, "-I", "-c", PROBE, str(secret)], Confinement(folder))
        try:
            result = subprocess.run(command, cwd=folder, env=environment(folder, "probe"), capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return result.returncode == 0 and result.stdout.strip() == b"" and (folder / "inside").exists()


def _available(level: str) -> bool:
    match level:
        case "bubblewrap":
            return sys.platform == "linux" and shutil.which("bwrap") is not None
        case "landlock":
            from autoresearch_mcp.run.inside import confine

            return confine.landlock_abi() > 0
        case "seatbelt":
            return sys.platform == "darwin" and Path("/usr/bin/sandbox-exec").exists()
        case _:
            return False


def wrap(level: str, command: list[str], confinement: Confinement) -> list[str]:
    """The command that runs `command` confined at `level`."""
    match level:
        case "bubblewrap":
            return [*_bubblewrap(confinement), "--", *_confine("seccomp", confinement), *command]
        case "landlock":
            return [*_confine("landlock", confinement), *command]
        case "seatbelt":
            return ["/usr/bin/sandbox-exec", "-p", _seatbelt(confinement), *command]
        case _:
            return [*_confine("none", confinement), *command] if sys.platform == "linux" else command


PACKAGES = Path(__file__).parent.parent.parent
"""Where this package lies: Python lists the folder to find it, for a scoring command of ours."""


ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""glibc gives large blocks back to the kernel as they are freed and faults every page in anew. Keeping them made training of the
cpu preset 1.25 to 1.3 times as fast here, and its evaluation 1.5 times. Unknown to other C libraries, which is no harm."""


def environment(folder: Path, mark: str, **extra: str) -> dict[str, str]:
    """A run's whole environment: nothing of the server's own but where programs and the accelerator are found."""
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
    return kept | own | ALLOCATOR | extra


# --- what must be readable for Python and torch to run ---------------------------------------------------------------


@functools.cache
def _interpreter() -> tuple[Path, ...]:
    """Folders of the running interpreter, its environment and its packages."""
    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sysconfig.get_paths().values()}
    paths |= {*site.getsitepackages(), str(Path(sys.executable).resolve().parent.parent)}
    folders = {Path(path) for path in paths if Path(path).is_dir()}
    found = sorted(folders | {folder.resolve() for folder in folders})
    return tuple(path for path in found if not any(other in path.parents for other in found) and path != Path("/"))


SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/nix/store", "/opt/rocm", "/run/opengl-driver")
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/nsswitch.conf",
)
GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "kfd", "dri/*")


def gpu_devices() -> list[Path]:
    """Device files of NVIDIA and AMD accelerators."""
    return [path for pattern in GPU_DEVICES for path in sorted(Path("/dev").glob(pattern)) if not path.is_dir()]


def _bubblewrap(confinement: Confinement) -> list[str]:
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--hostname", "autoresearch"]
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    for name in SYSTEM_FILES:
        arguments += ["--ro-bind-try", name, name]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"]
    arguments += ["--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]
    kernel = "/sys" if confinement.gpu else "/sys/devices/system"  # numbers of cores and nodes; drivers want the rest
    arguments += ["--ro-bind-try", kernel, kernel]
    if confinement.gpu:
        for device in gpu_devices():
            arguments += ["--dev-bind", str(device), str(device)]
    for path in (*_interpreter(), *_launcher(), *confinement.readable):
        arguments += ["--ro-bind", str(path), str(path)]
    folder = str(confinement.folder)
    arguments += ["--bind", folder, folder]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", folder]


def _launcher() -> list[Path]:
    """The one file of ours that a run can see: what applies the rules inside, before the command starts."""
    return [Path(__file__).parent / "inside" / "confine.py"]


def _confine(rules: str, confinement: Confinement) -> list[str]:
    """Runs confine.py in front of the command: resource limits, seccomp, and with `landlock` the rules on files."""
    arguments = [sys.executable, "-I", "-S", str(_launcher()[0]), rules]
    arguments += ["--processes", str(confinement.processes), "--file-bytes", str(confinement.file_bytes)]
    if rules == "landlock":
        readable = [*SYSTEM, *SYSTEM_FILES, "/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version"]
        readable += [str(path) for path in (*_interpreter(), *_launcher(), *confinement.readable)]
        writable = [str(confinement.folder), "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
        if confinement.gpu:
            readable += ["/sys", "/proc/driver/nvidia", "/proc/devices"]
            writable += [str(device) for device in gpu_devices()]
        for path in readable:
            arguments += ["--read", path]
        for path in writable:
            arguments += ["--write", path]
    return [*arguments, "--"]


def _seatbelt(confinement: Confinement) -> str:
    """A sandbox-exec profile. Apple documents the tool as deprecated and still ships it; Chromium and Bazel rely on it."""

    def quoted(path: object) -> str:
        return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'

    readable = ["/usr", "/bin", "/System", "/Library", "/private/var/db", "/dev", "/private/etc/localtime", "/opt/homebrew"]
    subpaths = " ".join(f"(subpath {quoted(path)})" for path in (*readable, *_interpreter(), *confinement.readable))
    folder = quoted(confinement.folder.resolve())
    return "\n".join(
        (
            "(version 1)",
            "(deny default)",
            "(allow process-fork process-exec sysctl-read mach-lookup iokit-open signal (target same-sandbox))",
            '(allow file-read* (literal "/") ' + subpaths + ")",
            f"(allow file-read* file-write* (subpath {folder}))",
            '(allow file-write-data (literal "/dev/null"))',
        )
    )
