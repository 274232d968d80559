"""The launcher inside the sandbox, as a process that applies its rules to itself: what is left of rights, limits and files then."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch_mcp.run import sandbox, users
from autoresearch_mcp.run.inside.confine import THREADS
from autoresearch_mcp.run.levels import LAUNCHER, Confinement

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its rules are Linux's")

LIMITS = """
import os, resource
cores = [line.split()[4:6] for line in open("/proc/self/limits") if line.startswith("Max core")]
print(resource.getrlimit(resource.RLIMIT_FSIZE), cores)
print(resource.getrlimit(resource.RLIMIT_NPROC)[0])
print([line.split()[-3:-1] for line in open("/proc/self/limits") if line.startswith("Max realtime timeout")])
print({line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith(("NoNewPrivs", "CapEff", "CapBnd"))})
"""
FILES = """
import os, sys
def tried(path, flags):
    try:
        os.close(os.open(path, flags, 0o600))
        return "yes"
    except OSError as error:
        return type(error).__name__
outside = sys.argv[1]
print(tried("made", os.O_CREAT | os.O_RDWR), tried(os.__file__, os.O_RDONLY), tried(os.__file__, os.O_RDWR))
print(*[tried(outside, flags) for flags in (os.O_RDONLY, os.O_WRONLY, 3, 3 | os.O_TRUNC)])
print(tried(".", os.O_TMPFILE | os.O_RDWR), tried(f"/proc/{os.getppid()}/environ", os.O_RDONLY))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """The writable one of a confinement, in one that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "outside").write_text("as it was")
        inner = Path(name) / "inner"
        inner.mkdir()
        yield inner


def launched(*options: str, code: str = LIMITS) -> list[str]:
    command = [sys.executable, "-I", "-S", str(LAUNCHER), *options, "--", sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_limits_hold_for_what_it_becomes():
    mark = (1 << 40) + 99
    bounds, processes, marked, rights = launched("none", "--processes", "50", "--file-bytes", "4096", "--mark", str(mark))
    assert bounds == "(4096, 4096) [['1', '1']]" and marked == f"[['{mark}', '{mark}']]"
    assert "'NoNewPrivs': '1'" in rights
    if os.getuid() != 0:
        assert int(processes) > THREADS * 50, "what the user runs besides is not charged to it"


@pytest.mark.skipif(not users.possible(), reason="only root can give another id")
def test_an_id_of_its_own_comes_without_rights_and_with_tasks_of_its_own(folder: Path):
    pair = users.take()
    assert pair is not None
    users.give(folder, pair.run)
    command = sandbox.wrap("landlock", [sys.executable, "-c", LIMITS], Confinement(folder, processes=50, user=pair.run))
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    pair.release()
    assert int(said[1]) == THREADS * 50
    capability = users.capability_for([Path(sys.executable), folder], pair.run)
    kept = f"{0 if capability is None else 1 << capability:016x}"
    assert f"'CapEff': '{kept}'" in said[3] and f"'CapBnd': '{kept}'" in said[3]


@pytest.mark.parametrize("level", [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")])
def test_files_are_open_as_listed_and_no_other_way(level: str, folder: Path):
    pair = users.take() if level == "landlock" else None
    if pair is not None:
        users.give(folder, pair.run)
    outside = folder.parent / "outside"
    outside.chmod(0o666)  # nothing but the level keeps it
    command = [sys.executable, "-c", FILES, str(outside)]
    command = sandbox.wrap(level, command, Confinement(folder, user=pair.run if pair else None))
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if pair is not None:
        pair.release()
    own, others, rest = result.stdout.splitlines()
    assert own.startswith("yes yes ") and not own.endswith("yes"), result.stderr
    assert "yes" not in others and rest.split()[0] == "yes"
    assert outside.read_text() == "as it was"
