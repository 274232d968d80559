"""The house: arrows run one way, no module is too long to read in one sitting, and names need no explanation."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGE = ROOT / "server" / "autoresearch_mcp"
FLOORS = (
    ("cli",),
    ("serving", "looking"),
    ("app", "demo", "morning", "sending", "night", "writing", "unavailable"),
    ("calls", "doctor", "web", "dashboard", "subscriptions", "connect", "options"),
    ("links",),
    ("views",),
    ("loop",),
    ("executors",),
    ("run",),
    ("record", "evaluate"),
    ("create", "new_task"),
    ("workspace",),
    ("objects", "data"),
    ("task",),
    ("sections",),
    ("text", "files", "patterns"),
    ("errors",),
    ("__init__",),
)
"""Rooms from the top floor down. A room may use those below it, and its own folder."""
LINES, CLASS_LINES = 400, 300
LONGER = {"loop/patches.py"}  # the forms that models write patches in are many, and belong together
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """Our own modules that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "autoresearch_mcp":
            module = (node.module or "").removeprefix("autoresearch_mcp").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                names.add(inner if (PACKAGE / Path(*inner.split("."))).with_suffix(".py").exists() else module or "__init__")
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("autoresearch_mcp.") for alias in node.names if "autoresearch_mcp." in alias.name}
    return {name if (PACKAGE / Path(*name.split("."))).with_suffix(".py").exists() else f"{name}.__init__" for name in names}


def floor(name: str) -> int:
    room = name.split(".")[0]
    found = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"{room} stands on no floor: give it one in FLOORS"
    return found[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_run_down(path: Path):
    name = name_of(path)
    up = [other for other in imported(path) if name.split(".")[0] != other.split(".")[0] and floor(other) <= floor(name)]
    assert not up, f"{name} uses {', '.join(up)}, which stands beside or above it"


def test_there_is_no_circle():
    graph = {name_of(path): imported(path) - {name_of(path)} for path in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_read_in_one_sitting(path: Path):
    text = path.read_text()
    if str(path.relative_to(PACKAGE)) not in LONGER:
        assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= CLASS_LINES, node.name
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_need_no_alias_and_echo_nothing(path: Path):
    assert path.stem not in sys.stdlib_module_names
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autoresearch_mcp"):
            assert not [alias.name for alias in node.names if alias.asname]


def test_the_tests_mirror_the_rooms():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert rooms <= {path.name for path in (ROOT / "tests").iterdir()}
