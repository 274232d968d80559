"""Hosts that are forked from a process which has imported what they need: as detached as any, each with its own environment."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autoresearch_mcp.executors import nursery
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.files import is_locked, try_lock
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.night.agent import _tree
from autoresearch_mcp.run import slots
from autoresearch_mcp.run.spec import RunSpec
from conftest import TOY, UNTIL_TOLD, WORK, ended, lay_out, let_go, replace, run, spec_of, supervisor_of, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Session]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[nursery.Nursery]:
    """A nursery of this test's own, by which every run here is started."""
    made = nursery.Nursery()
    made._starts = 1  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("autoresearch_mcp.executors.local.NURSERY", made)
    yield made
    made.end()


def nursery_of(session: Session) -> psutil.Process:
    """The process that forked the latest run's host."""
    parent = supervisor_of(session, session.state.experiments[-1].number).parent()
    assert parent is not None
    return parent


def test_a_forked_host_makes_a_run_like_any(ours: nursery.Nursery, toy: Make):
    session = toy()
    run(session)
    assert (ended(session).outcome, ended(session).score) == ("scored", 1.0)
    assert nursery.PROGRAM not in spec_of(session, 1).host_log.read_text()
    assert not is_locked(spec_of(session, 1).lock)


def test_the_second_run_of_a_process_is_forked_and_the_first_is_not(toy: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoresearch_mcp.executors.local.NURSERY", made := nursery.Nursery())
    session = toy(UNTIL_TOLD)
    parents: list[list[str]] = []
    for _ in range(2):
        session.run_experiment("one")
        parents.append(nursery_of(session).cmdline())
        session.stop()
        wait_for(lambda: (session.refresh(), not session.state.running)[1])
        session.discard("")
    made.end()
    assert [nursery.PROGRAM in words for words in parents] == [False, True]


def test_each_host_has_the_environment_of_its_start(ours: nursery.Nursery, toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(WORK, TOY.replace("[run]", "[run]\nresources = { seat = 1 }"))
    monkeypatch.setenv(slots.SETTING, "")
    run(session)
    assert ended(session).outcome != "scored" and "say what there is in the" in ended(session).excerpt
    monkeypatch.setenv(slots.SETTING, "seat=1")
    run(session, replicate=True)
    assert ended(session).outcome == "scored", ended(session).excerpt


def test_its_hosts_live_on_when_it_is_killed_and_the_next_run_has_a_new_one(ours: nursery.Nursery, toy: Make):
    session = toy(UNTIL_TOLD)
    session.run_experiment("one")
    first = nursery_of(session)
    first.kill()
    let_go(session, 1)
    wait_for(lambda: (session.refresh(), not session.state.running)[1])
    assert ended(session).outcome == "scored"
    session.keep()
    replace(session, UNTIL_TOLD.replace("1.0", "2.0"))
    session.run_experiment("two")
    assert nursery_of(session).pid != first.pid
    let_go(session, 2)
    wait_for(lambda: (session.refresh(), not session.state.running)[1])
    assert session.experiment(2).score == 2.0


def test_a_host_that_nobody_waits_for_any_more_makes_no_run(tmp_path: Path):
    """Else a run that was started otherwise meanwhile would be made twice."""
    spec = lay_out(tmp_path)
    ours, theirs = socket.socketpair()
    asks, asked = socket.socketpair()
    with asks:
        with asked:
            nursery.begin([nursery.PROGRAM, str(asked.fileno())], subprocess.DEVNULL, None, asked.fileno())
        lock = try_lock(spec.lock)
        assert lock is not None
        with ours, theirs, open(spec.host_log, "ab") as log:
            nursery.ask(asks, spec, [lock, log.fileno(), theirs.fileno()])
            theirs.close()
            assert ours.recv(1) == nursery.NOD
            assert is_locked(spec.lock)
        os.close(lock)
        wait_for(lambda: not is_locked(spec.lock))
        assert not spec.progress.exists() and not spec.ended.exists()


TWO = """
import sys
from pathlib import Path
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.run.spec import RunSpec

for folder in sys.argv[1:]:
    spec = RunSpec.read(Path(folder))
    files = {name: (spec.work / name).read_bytes() for name in ("work.py", "score.py")}
    LocalExecutor().start(spec, files)
input()
"""


def test_it_ends_with_the_process_whose_it_is_and_its_hosts_do_not(tmp_path: Path):
    specs: list[RunSpec] = []
    for number in range(2):
        spec = lay_out(tmp_path / str(number), UNTIL_TOLD).model_copy(update={"ledger": None})
        spec.path.write_text(spec.model_dump_json())
        specs.append(spec)
    executor = LocalExecutor()
    server = subprocess.Popen([sys.executable, "-c", TWO, *(str(spec.folder) for spec in specs)], stdin=subprocess.PIPE)
    wait_for(lambda: all(executor.progress(spec).pid for spec in specs))
    forked = psutil.Process(executor.progress(specs[1]).pid)
    assert nursery.PROGRAM in forked.cmdline()
    assert _tree(psutil.Process(server.pid)) == [psutil.Process(server.pid)], "what a night ends with its agent"
    server.communicate()
    wait_for(lambda: nursery.PROGRAM not in (forked.parent() or psutil.Process(1)).cmdline())
    assert all(executor.is_alive(spec) for spec in specs)
    for spec in specs:
        (spec.work / "go").touch()
    wait_for(lambda: not any(executor.is_alive(spec) for spec in specs))
    results = [executor.collect(spec) for spec in specs]
    assert [result.score for result in results if result is not None] == [1.0, 1.0]
