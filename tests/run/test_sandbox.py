"""Which level of sandbox is found, where, and that the self-check can tell a broken one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch_mcp.run import sandbox
from autoresearch_mcp.run.levels import REGISTRY, Confinement, Level
from autoresearch_mcp.sections import LEVELS

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and Landlock are Linux's")
CONFINED = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]
DETECT = "from autoresearch_mcp.run.sandbox import detect; print(detect().level)"
AROUND = [
    "bwrap",
    "--bind",
    "/",
    "/",
    "--dev-bind",
    "/dev",
    "/dev",
    "--proc",
    "/proc",
    "--unshare-user",
    "--uid",
    "1000",
    "--gid",
    "1000",
]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(sandbox.OVERRIDE, raising=False)
    sandbox.detect.cache_clear()
    yield
    sandbox.detect.cache_clear()


def detected(*around: str, **environment: str) -> str:
    command = [*around, sys.executable, "-c", DETECT]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@LINUX
@pytest.mark.needs("bubblewrap")
def test_the_strongest_level_is_taken():
    assert detected() == "bubblewrap"


@LINUX
@pytest.mark.needs("bubblewrap")
def test_a_normal_user_has_bubblewrap_too():
    assert detected(*AROUND, "--") == "bubblewrap"


@LINUX
@pytest.mark.needs("bubblewrap", "landlock")
def test_without_user_namespaces_it_falls_to_landlock():
    """As in a container that forbids them: no capability, and no new user namespace to get one in."""
    assert detected(*AROUND, "--disable-userns", "--") == "landlock"


@LINUX
@pytest.mark.parametrize("level", ["none", *CONFINED])
def test_a_level_can_be_chosen(level: str):
    assert detected(AUTORESEARCH_SANDBOX=level) == level


def test_a_level_that_does_not_exist_here_is_none_and_says_so(monkeypatch: pytest.MonkeyPatch):
    missing = "seatbelt" if sys.platform == "linux" else "bubblewrap"
    monkeypatch.setenv(sandbox.OVERRIDE, missing)
    found = sandbox.detect()
    assert found.level == "none" and "does not work here" in found.advice


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "none"])
def test_a_level_that_lets_something_through_does_not_pass_the_self_check(name: str, monkeypatch: pytest.MonkeyPatch):
    level = REGISTRY[name]
    monkeypatch.setattr(type(level), "available", lambda _: True)
    monkeypatch.setattr(type(level), "wrap", lambda _, command, confinement: command)
    assert not sandbox.passes(level)


@pytest.mark.parametrize("level", REGISTRY.values(), ids=REGISTRY)
def test_every_level_passes_the_self_check_where_the_machine_has_what_it_needs(level: Level):
    if not level.available():
        pytest.skip(f"{level.name} is not on this machine. {level.advice}")
    assert sandbox.passes(level)


def test_every_level_says_what_it_does_and_a_task_can_demand_it():
    assert tuple(REGISTRY) == LEVELS
    for level in REGISTRY.values():
        assert level.explanation.startswith("runs ")
        assert level.wrap(["command"], Confinement(Path("/nowhere")))[-1] == "command"


@LINUX
@pytest.mark.parametrize("level", CONFINED)
def test_what_is_readable_and_writable(level: str, tmp_path: Path):
    folder, data = tmp_path / "folder", tmp_path / "data"
    (folder / "tmp").mkdir(parents=True)
    data.mkdir()
    (data / "given").write_text("given")
    (tmp_path / "hidden").write_text("hidden")
    code = f"""
import os, tempfile
print(open({str(data / "given")!r}).read())
tempfile.mkstemp()
for path in ({str(tmp_path / "hidden")!r}, {str(data / "new")!r}, "/usr/new", "/etc/passwd"):
    try:
        open(path, "w" if "new" in path else "r").close()
        print("reached", path)
    except OSError:
        pass
print(len([n for n in os.listdir("/proc") if n.isdigit()]) if {level == "bubblewrap"} else 0)
"""
    command = sandbox.wrap(level, [sys.executable, "-c", code], Confinement(folder, [data]))
    result = subprocess.run(command, cwd=folder, env=sandbox.environment(folder, "x"), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.split()
    assert lines[0] == "given" and "reached" not in lines
    assert int(lines[-1]) <= 3  # of all processes, bubblewrap's own and this one


def test_the_seatbelt_profile_quotes_paths_and_denies_by_default(tmp_path: Path):
    folder = tmp_path / 'a "quoted" folder'
    folder.mkdir()
    command = sandbox.wrap("seatbelt", ["python"], Confinement(folder))
    assert command[:2] == ["/usr/bin/sandbox-exec", "-p"] and command[-1] == "python"
    assert "(deny default)" in command[2] and r"a \"quoted\" folder" in command[2] and "network" not in command[2]
