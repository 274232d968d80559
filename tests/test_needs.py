"""Tests that need a tool: skipped with a line that says how to get it, failed where the tool is required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from needs import REQUIRE

TESTS = """
import pytest
from needs import require

@pytest.mark.needs("bubblewrap")
def test_with_a_mark(): pass

@pytest.fixture
def sandbox():
    require("bubblewrap")

def test_with_a_fixture(sandbox): pass

def test_without(): pass
"""


def ended(folder: Path, path: Path, required: str = "") -> subprocess.CompletedProcess[str]:
    """A test session on a machine whose programs are those in `path`."""
    (folder / "test_it.py").write_text(TESTS)
    path.mkdir(exist_ok=True)
    environment = os.environ | {
        "PATH": str(path),
        "PYTHONPATH": str(ROOT / "tests"),
        REQUIRE: required,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "needs", "-p", "no:cacheprovider", "test_it.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("found", ["nothing", "a bwrap that fails"])
def test_what_needs_an_absent_tool_is_skipped_and_the_end_says_how_to_get_it(found: str, tmp_path: Path):
    path = tmp_path / "bin"
    path.mkdir()
    if found != "nothing":
        (path / "bwrap").symlink_to("/bin/false")
    session = ended(tmp_path, path)
    assert session.returncode == 0 and "1 passed, 2 skipped" in session.stdout, session.stdout + session.stderr
    assert "   2 tests: bubblewrap does not work here; to get it: install it (Debian: apt install bubblewrap)" in session.stdout


@pytest.mark.parametrize("required", ["all", "npm, bubblewrap"])
def test_what_is_required_fails_instead(required: str, tmp_path: Path):
    session = ended(tmp_path, tmp_path / "bin", required)
    assert session.returncode == 1 and "skipped" not in session.stdout, session.stdout
    assert f"{REQUIRE} asks for it" in session.stdout


def test_only_what_is_required_fails(tmp_path: Path):
    assert ended(tmp_path, tmp_path / "bin", "landlock").returncode == 0


def test_a_tool_that_is_not_in_the_table_cannot_be_required(tmp_path: Path):
    session = ended(tmp_path, tmp_path / "bin", "bubblewarp")
    assert session.returncode == 4 and "names bubblewarp; the tools are all, bubblewrap" in session.stderr
