"""What compiling leaves: kept for later runs of the same file, made without data, and never by a run that learns."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_control import WITH_DATA, with_data

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import compiled
from conftest import ended, log_of, replace, run, spec_of

Make = Callable[..., Session]
COMPILES = WITH_DATA.replace('outputs = ["result.txt"]', 'outputs = ["result.txt"]\ncompiled = "made/here"')
LEVELS = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]
WORK = """
from pathlib import Path
made = Path("made/here")
found = sorted(str(path.relative_to(made)) for path in made.rglob("*")) if made.exists() else []
print("found", found, flush=True)
(made / "deep").mkdir(parents=True, exist_ok=True)
(made / "deep" / "kernel").write_text("compiled")
reply, descriptors = ask(op="data")
(made / "learned").write_text(os.read(descriptors[0], 100).decode())
open("result.txt", "w").write("1")
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    yield


def entries() -> list[Path]:
    return sorted(compiled._folder().glob("[0-9a-f]*"))  # pyright: ignore[reportPrivateUsage]


def test_at_no_level_nothing_is_kept(toy: Make, force: Callable[[str], None]):
    """A run there could write to the cache itself."""
    force("none")
    session = with_data(toy, WORK, toml=COMPILES)
    run(session)
    assert ended(session).score == 1.0 and "found []" in log_of(session, 1) and entries() == []


@pytest.mark.skipif(sys.platform != "linux", reason="orphans fall to a subreaper on Linux alone")
@pytest.mark.parametrize("level", LEVELS)
def test_a_daemon_of_the_run_for_compiling_is_ended_before_the_run(toy: Make, force: Callable[[str], None], level: str):
    force(level)
    daemon = """
import subprocess, sys, time
if not os.path.exists("made/here"):
    os.makedirs("made/here")
    for _ in range(5):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(296)"], start_new_session=True)
    time.sleep(0.5)
else:
    import glob
    ours = [open(path, "rb").read() for path in glob.glob("/proc/[0-9]*/cmdline")]
    print("daemons", sum(b"sleep(296)" in line for line in ours), flush=True)
ask(op="data")
open("result.txt", "w").write("1")
"""
    session = with_data(toy, daemon, toml=COMPILES)
    run(session)
    assert ended(session).score == 1.0 and "daemons 0" in log_of(session, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_every_run_of_a_file_finds_what_compiling_left_and_nothing_of_data(toy: Make, force: Callable[[str], None], level: str):
    force(level)
    session = with_data(toy, WORK, toml=COMPILES)
    logs: list[str] = []
    for again in (False, True):
        run(session, replicate=again)
        assert ended(session).score == 1.0, ended(session).excerpt
        logs.append(log_of(session, 1))
    assert all("found ['deep', 'deep/kernel']" in text for text in logs), logs
    assert len(entries()) == 1 and not (entries()[0] / "learned").exists()
    assert list(ended(session).seconds)[:2] == ["queued", "compile"]
    first, second = (session.spec(one.started.run) for one in session.experiment(1).runs)
    assert first and first.compile_log.exists() and second and not second.compile_log.exists(), "the second run only copies"


def test_another_file_sees_nothing_of_it(toy: Make):
    session = with_data(toy, WORK, toml=COMPILES)
    run(session)
    session.keep()
    replace(session, session.read().text.replace('"kernel"', '"other"'))
    run(session)
    assert "found ['deep', 'deep/other']" in log_of(session, 2)
    assert len(entries()) == 2


def test_a_file_that_never_asks_for_data_leaves_nothing_and_says_why_itself(toy: Make):
    work = WORK.replace('reply, descriptors = ask(op="data")', "raise RuntimeError('a bug')")
    session = with_data(toy, work, toml=COMPILES)
    run(session)
    assert ended(session).failure == "error" and "RuntimeError: a bug" in ended(session).excerpt
    assert entries() == []


def test_links_and_holes_and_other_names_are_not_taken_over(toy: Make, tmp_path: Path):
    """Whatever lies there is copied by us, who may read more than the run."""
    secret = tmp_path / "secret"
    secret.write_text("sealed")
    hostile = f"""
import os
from pathlib import Path
made = Path("made/here")
if not made.exists():
    made.mkdir(parents=True)
    os.symlink({str(secret)!r}, made / "link")
    os.symlink({str(tmp_path)!r}, made / "folder")
    os.mkfifo(made / "pipe")
    (made / "plain").write_text("x")
    os.link(made / "plain", made / "twice")
    with open(made / "sparse", "wb") as file:
        file.truncate(1 << 30)
else:
    print("found", sorted(os.listdir(made)), flush=True)
ask(op="data")
open("result.txt", "w").write("1")
"""
    session = with_data(toy, hostile, toml=COMPILES)
    run(session)
    assert ended(session).score == 1.0 and "found []" in log_of(session, 1)


def test_a_folder_that_is_a_link_is_none(toy: Make, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("sealed")
    work = f"""
import os
os.makedirs("made", exist_ok=True)
if not os.path.exists("made/here"):
    os.symlink({str(tmp_path / "outside")!r}, "made/here")
print("found", os.listdir("made"), os.path.isfile("made/here/file"), flush=True)
ask(op="data")
open("result.txt", "w").write("1")
"""
    session = with_data(toy, work, toml=COMPILES)
    run(session)
    assert ended(session).score == 1.0
    (entry,) = entries()
    assert list(entry.iterdir()) == []


def test_the_oldest_entries_go(monkeypatch: pytest.MonkeyPatch, toy: Make):
    monkeypatch.setattr(compiled, "ENTRIES", 1)
    folder = compiled._folder()  # pyright: ignore[reportPrivateUsage]
    for name in ("a" * 32, "b" * 32):
        (folder / name).mkdir(parents=True)
    left = folder.parent / "left"
    (left / "made").mkdir(parents=True)
    (left / "made" / "file").write_text("x")
    compiled._keep(left, "made", folder / ("c" * 32))  # pyright: ignore[reportPrivateUsage]
    assert [entry.name for entry in entries()] == ["c" * 32]
    assert (entries()[0] / "file").read_text() == "x"


def test_it_needs_data_to_wait_for(toy: Make):
    from autoresearch_mcp.errors import TaskError
    from autoresearch_mcp.task import parse_task
    from conftest import TOY

    with pytest.raises(TaskError, match="run.compiled needs data.train"):
        parse_task(TOY.replace('outputs = ["result.txt"]', 'outputs = ["result.txt"]\ncompiled = "made"'))


def test_a_run_that_was_made_ready_has_it_too(toy: Make):
    toml = COMPILES.replace("compiled =", 'preload = ["decimal"]\ncompiled =')
    session = with_data(toy, WORK, toml=toml)
    session.runs.get_ready()
    run(session)
    assert spec_of(session, 1).home.name.startswith("ready-")
    assert "found ['deep', 'deep/kernel']" in log_of(session, 1) and ended(session).score == 1.0
    assert json.loads(spec_of(session, 1).path.read_text())["run"] == 1
