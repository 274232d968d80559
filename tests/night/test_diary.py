"""What is said of a night, and that it fits on the disk."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from autoresearch_mcp.night import diary
from autoresearch_mcp.night.diary import Diary, last_lines


def test_lines_have_a_time_and_nothing_a_terminal_obeys(tmp_path: Path):
    said = io.StringIO()
    Diary(tmp_path / "log", Console(file=said, soft_wrap=True)).note("start 1\n| \x1b[2Jgone")
    assert (tmp_path / "log").read_text() == said.getvalue()
    assert (tmp_path / "log").read_text()[19:] == "  start 1\n    | \\x1b[2Jgone\n"


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diary, "LIMIT", 2000)
    book = Diary(tmp_path / "log", Console(file=io.StringIO()))
    for number in range(200):
        book.note(f"line {number}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert "line 199" in (tmp_path / "log").read_text()


def test_a_line_that_moves_is_shown_on_a_terminal_alone(tmp_path: Path):
    said = io.StringIO()
    plain = Diary(tmp_path / "log", Console(file=said))
    plain.show("start 1")
    plain.close()
    assert said.getvalue() == ""
    moving = Diary(tmp_path / "log", Console(file=said, force_terminal=True))
    moving.show("start 1; 3 experiments")
    moving.close()
    assert "start 1; 3 experiments" in said.getvalue() and not (tmp_path / "log").exists()


def test_a_terminal_that_was_closed_and_a_full_disk_are_no_reason_to_end(tmp_path: Path):
    with open("/dev/full", "w") as full:
        book = Diary(tmp_path / "no folder" / "log", Console(file=full, force_terminal=True))
        book.show("start 1")
        book.note("start 1 was over")
        book.close()
        full.close = lambda: None  # what is left in it cannot be written either


def test_the_end_of_an_output_is_kept():
    frames = "    at async Turn.run (file:///gemini.js:333001:24) {\n" * 50
    kept = last_lines("\n".join(f"line {number}" for number in range(100)) + f"\n{frames}\n" + "x" * 5000)
    assert "line 99" in kept and "line 80" not in kept and len(kept) < 1000
