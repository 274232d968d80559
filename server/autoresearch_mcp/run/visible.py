"""What a run may read: a list, and nothing else. The system's libraries, the interpreter, and of all installed packages those that
a task lists, with what they need.

Of everything that lies on one path, the nearest word counts: a folder that is shown may hold one that is hidden, and that again one
that is shown. So packages stay out of sight where they are installed below /usr, and so does a workspace that somebody keeps there.

A run imports from an environment of its own: a folder of links, one for each entry of a listed package. Python lists a folder to
find what it can import; what is not listed is then simply not installed, at every level and with -I too, while names that can be
seen and not opened would break every library that tries an optional import. The price is some seventy links a run.

What it does not do: a package is listed as a whole, with its data files, and a folder that several packages share (nvidia/) comes
with all of it. Console scripts of packages are not there; `{python} -m` is.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import platformdirs

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.sections import OURS
from autoresearch_mcp.task import bundled_tasks

BASE = ("torch", "numpy", "tiktoken", "safetensors")
"""What every run may import, with all they need: what the default task's files are written with."""
COMPILERS = ("setuptools", "triton")  # what torch.compile builds its kernels with, where they are installed
PREFIXES = ("/usr", "/usr/local")
PARTS = (
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "share",  # of every prefix
    "*-linux-gnu", "cuda*", "nvvm", "targets",  # compilers and their libraries
    "Frameworks", "Resources", "Python",  # Python as macOS packs it
)  # fmt: skip
"""What of a prefix is read: where programs and libraries lie, and not what else somebody keeps there (src, envs, pkgs)."""
WHOLE = ("/lib", "/lib64", "/lib32", "/bin", "/sbin", "/nix/store", "/opt/rocm", "/run/opengl-driver")
PROJECT = (".git", ".autoresearch", "autoresearch.toml")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
MISSING_MODULE = re.compile(r"No module named '?([A-Za-z0-9_]+)")

# --- the list ---


@functools.cache
def system() -> tuple[Path, ...]:
    """Programs, libraries and the interpreter; no package."""
    executable = Path(sys.executable)
    prefixes = {*map(Path, PREFIXES), Path(sys.base_prefix), Path(sys.base_exec_prefix), executable.resolve().parent.parent}
    parts = {part for prefix in prefixes if prefix != Path("/") for pattern in PARTS for part in prefix.glob(pattern)}
    own = (executable, base_executable(), Path(sys.prefix) / "pyvenv.cfg")  # of a virtual environment no more than makes it one
    return tuple(sorted(path for path in {*parts, *own, *map(Path, WHOLE)} if path.exists()))


@functools.cache
def package_folders() -> tuple[Path, ...]:
    """Every folder that packages of this or another Python are installed in, as far as a run could find it."""
    named = [*sys.path, *site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = {Path(path) for path in named if Path(path).name in PACKAGE_FOLDERS}
    found |= {path for part in system() for name in PACKAGE_FOLDERS for path in part.glob(f"py*/{name}")}
    return tuple(sorted(path for path in found if path.is_dir()))


def installed() -> tuple[Path, ...]:
    """All that is installed in this environment, for a command that is trusted."""
    return (Path(sys.prefix), *package_folders())


@functools.cache
def private() -> tuple[Path, ...]:
    """What no run may read, wherever it lies: this package and the tasks that come with it, homes, caches."""
    package = Path(__file__).parent.parent
    tasks = bundled_tasks().get("default", package).parent  # of a source checkout its root, with all that lies there
    caches = [os.environ.get(name) for name in ("XDG_CACHE_HOME", "PIP_CACHE_DIR", "UV_CACHE_DIR")]
    caches += [platformdirs.user_cache_dir(name) for name in ("pip", "uv")]
    return (package, tasks, Path.home(), cache_root(), *(Path(cache) for cache in caches if cache))


def installation(executable: Path) -> Path:
    """What a program needs of where it was installed: the folder above its bin, else the program alone. Never what holds more than
    an installation: a prefix of the system's, a home or what is above it, a project.
    """
    real, home = executable.resolve(), Path.home().resolve()
    prefix = real.parent.parent
    shared = (*map(Path, PREFIXES), Path("/opt"), home / ".local", *home.parents, home)
    if real.parent.name != "bin" or prefix in shared or any((prefix / name).exists() for name in PROJECT):
        return real
    return prefix


# --- packages ---


def entries(packages: Iterable[str]) -> dict[str, Path]:
    """What may be imported: where it lies, by its place in a folder of packages. `packages`: distributions besides BASE.

    24 distributions take 30 ms, unless nothing was installed since they were listed last. Raises PackageNotFoundError for one of
    `packages` that is not installed, ValueError for one whose list of files or requirements cannot be read.
    """
    return _entries(tuple(packages), tuple(_changed(folder) for folder in package_folders()))


def _changed(folder: Path) -> tuple[int, ...]:
    """When a folder of packages has changed last, and what each package says of itself: it is written after its folder is made."""
    with os.scandir(folder) as entries:
        said = [entry.stat().st_mtime_ns for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
    return folder.stat().st_mtime_ns, *said


def get_ready(packages: Iterable[str]) -> None:
    """Lists what every run in this environment may read, before there is one that waits for it."""
    system()
    with suppress(PackageNotFoundError, OSError, ValueError):  # the run will say so
        entries(packages)


@functools.cache
def _entries(packages: tuple[str, ...], as_installed: tuple[tuple[int, ...], ...]) -> dict[str, Path]:
    for name in packages:
        importlib.metadata.distribution(name)
    found: dict[str, Path] = {}
    for distribution in _with_requirements((*BASE, *COMPILERS, *packages)):
        with _named(distribution.name):
            for entry in _top_level(distribution):
                found.setdefault(entry, Path(str(distribution.locate_file(entry))))
            if (source := _editable(distribution)) is not None:
                found.setdefault(f"__editable__/{distribution.name}", source)
    return found


@contextmanager
def _named(distribution: str) -> Generator[None]:
    """Says whose files they are that cannot be read."""
    try:
        yield
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"what the package {distribution} says of itself cannot be read ({error})") from error


def _with_requirements(names: Iterable[str]) -> list[Distribution]:
    """The installed distributions of these names and of all they require here. Never this one."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pending = [(str(canonicalize_name(name)), frozenset[str]()) for name in names]
    seen: set[tuple[str, frozenset[str]]] = {(OURS, frozenset())}
    found: dict[str, Distribution] = {}
    while pending:
        name, extras = wanted = pending.pop()
        if wanted in seen or name == OURS:
            continue
        seen.add(wanted)
        try:
            found[name] = importlib.metadata.distribution(name)
        except PackageNotFoundError:
            continue
        with _named(name):
            for text in found[name].requires or ():
                requirement = Requirement(text)
                marker = requirement.marker
                if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                    pending.append((str(canonicalize_name(requirement.name)), frozenset(requirement.extras)))
    return list(found.values())


def _top_level(distribution: Distribution) -> set[str]:
    """Entries of a folder of packages that belong to a distribution, its own metadata among them."""
    path: Path | None = getattr(distribution, "_path", None)
    metadata = {path.name} if path is not None else set[str]()
    record = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt")
    if record is None:  # as Debian installs them
        folder = Path(str(distribution.locate_file("")))
        names = (distribution.read_text("top_level.txt") or distribution.name.replace("-", "_")).split()
        return metadata | {found.name for name in names for glob in (name, f"{name}.*") for found in folder.glob(glob)}
    found: set[str] = set()
    for line in record.splitlines():
        first, _, rest = line.rsplit(",", 2)[0].strip('"').partition("/")
        if first == "__pycache__":
            found.add(f"{first}/{rest}")
        elif first and first != "..":
            found.add(first)
    return metadata | found


def _editable(distribution: Distribution) -> Path | None:
    """The project's folder, where a distribution was installed with `pip install -e`."""
    origin: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = bool(origin.get("dir_info", {}).get("editable"))
    return Path(unquote(urlsplit(str(origin["url"])).path)) if editable else None


def hint(output: str, packages: Sequence[str]) -> str | None:
    """What to do where a run's output says that it found no module which is installed, only not listed; None elsewhere."""
    for name in dict.fromkeys(reversed(MISSING_MODULE.findall(output))):
        owners = importlib.metadata.packages_distributions().get(name, [])
        if name in entries(packages) or importlib.util.find_spec(name) is None or not owners or OURS in owners:
            continue
        return (
            f'{name} is installed, but not among what a run may import: the human can add "{owners[0]}" to packages below '
            "[run] in autoresearch.toml, commit that, and start another session"
        )
    return None


# --- the environment ---


def base_executable() -> Path:
    """The interpreter itself, behind all virtual environments."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def interpreter(environment: Path) -> Path:
    """Of an environment that was or will be made there."""
    return environment / "bin" / "python"


def make_environment(folder: Path, listed: Mapping[str, Path]) -> Path:
    """Makes a virtual environment of links in `folder` to what `entries` has found, and returns its interpreter. Raises OSError."""
    base = base_executable()
    places = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for made in (folder / "bin", places / "__pycache__"):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    links = {folder / "bin" / name: base for name in ("python", "python3", base.name)}
    links |= {places / entry: path for entry, path in listed.items() if not entry.startswith("__editable__/")}
    for link, target in links.items():
        if not os.path.islink(link):
            os.symlink(target, link)
    return interpreter(folder)


# --- shown and hidden ---

Rules = Sequence[tuple[Path, bool]]
"""Real paths, each behind those above it, with whether it is shown: with all below it that has no rule of its own."""


def rules(shown: Iterable[Path], hidden: Iterable[Path]) -> Rules:
    """The fewest rules that say it. A path that is both is shown; folders alone can be hidden."""
    folders: dict[Path, Path] = {}

    def real(path: Path) -> Path:
        """Resolved; most of these paths lie in few folders."""
        if path.name in ("", "..") or path.is_symlink():
            return path.resolve()
        if (folder := folders.get(path.parent)) is None:
            folder = folders[path.parent] = path.parent.resolve()
        return folder / path.name

    words = {real(path): False for path in hidden if path.is_dir()}
    words |= {real(path): True for path in shown if path.exists()}
    words.pop(Path("/"), None)
    found: list[tuple[Path, bool]] = []
    for path in sorted(words):
        above = next((words[parent] for parent in path.parents if parent in words), False)
        if words[path] != above:
            found.append((path, words[path]))
    return found


def allowed(ruled: Rules) -> list[Path]:
    """The same as a list of what is shown as a whole, for a kernel that knows no exceptions: around something hidden its
    neighbours are listed, as they are now. Links among them are left out; where they lead has a rule, or has none.
    """
    words = dict(ruled)
    around = {parent for path, shown in ruled if not shown for parent in path.parents}
    found: list[Path] = []
    pending = [path for path, shown in ruled if shown]
    while pending:
        path = pending.pop()
        if path not in around:
            found.append(path)
            continue
        try:
            with os.scandir(path) as inner:
                pending += [Path(entry.path) for entry in inner if Path(entry.path) not in words and not entry.is_symlink()]
        except OSError:
            continue
    return sorted(found)


def links(paths: Iterable[Path], ruled: Rules) -> dict[Path, str]:
    """Links on the way to these paths which lie in nothing that is shown, and what each says."""
    words = dict(ruled)
    found: dict[Path, str] = {}
    plain: set[Path] = set()  # is no link, nor is anything on the way to it
    for path in map(Path.absolute, paths):
        if path.parent in plain and path.name != ".." and not path.is_symlink():  # most of these paths lie in few folders
            continue
        at, todo = Path("/"), list(path.parts[1:]) if path.exists() else []
        while todo:
            part = todo.pop(0)
            at = at.parent if part == ".." else at / part
            if at not in plain and at.is_symlink():
                says = at.readlink()
                if not next((words[parent] for parent in at.parents if parent in words), False):
                    found[at] = str(says)
                at, todo = (Path("/") if says.is_absolute() else at.parent), [*says.parts[says.is_absolute() :], *todo]
            else:
                plain.add(at)
    return found
