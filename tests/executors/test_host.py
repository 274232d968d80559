"""The host of a run on this machine: a result that is known is never lost, and never recorded twice."""

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.executors.host import LOG_BYTES, Printed, bring_up_to_date, leave, record
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.run.log import BoundedLog
from conftest import ended, open_session, run, spec_of, supervisor_of, wait_for

Make = Callable[..., Session]
SLOW = "import time\nprint('up', flush=True)\ntime.sleep(300)\n"
RESULT = RunEnded(run=1, outcome="scored", score=4.5)


@pytest.fixture
def dead(toy: Make) -> Session:
    """A session whose one run has died with its host, unnoticed so far."""
    session = toy(SLOW)
    number, _ = session.run_experiment("dies")
    host = supervisor_of(session, number)
    host.kill()
    spec = spec_of(session, number)
    wait_for(lambda: not session.executor.is_alive(spec))
    return session


def endings(session: Session) -> int:
    """How many rows end a run."""
    connection = sqlite3.connect(session.ledger.path)
    bodies = [json.loads(body) for (body,) in connection.execute("SELECT body FROM events")]
    connection.close()
    return sum(body["kind"] == "ended" for body in bodies)


def test_a_result_that_the_ledger_does_not_take_is_left_and_the_session_records_it(dead: Session):
    spec = spec_of(dead, 1)
    elsewhere = spec.model_copy(update={"ledger": spec.folder})  # a folder is no database
    assert record(elsewhere, RESULT, patience=0) is False
    assert dead.executor.collect(spec) == RESULT
    session = open_session(dead.workspace.root)
    assert ended(session) == RESULT and endings(session) == 1


def test_a_host_that_dies_between_its_two_writes_loses_nothing(dead: Session):
    leave(spec_of(dead, 1), RESULT)
    session = open_session(dead.workspace.root)
    assert ended(session).score == 4.5 and endings(session) == 1


def test_a_host_that_left_nothing_is_lost(dead: Session):
    session = open_session(dead.workspace.root)
    assert (ended(session).outcome, ended(session).failure) == ("crash", "lost") and endings(session) == 1


def test_recording_again_adds_no_row_and_the_first_word_stays(dead: Session):
    spec = spec_of(dead, 1)
    assert record(spec, RESULT, patience=0)
    assert record(spec, RESULT.model_copy(update={"score": 9.0}), patience=0)
    assert ended(dead).score == 4.5 and endings(dead) == 1
    assert dead.executor.collect(spec) == RESULT


def test_a_ledger_that_is_busy_is_tried_again(dead: Session):
    other = sqlite3.connect(dead.ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    busy = Ledger.__init__
    tries = 0

    def impatient(self: Ledger, path: object, make: bool = True) -> None:
        nonlocal tries
        busy(self, path, make)  # type: ignore[arg-type]
        self._db.execute("PRAGMA busy_timeout=10")
        tries += 1
        if tries == 2:
            other.execute("ROLLBACK")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "__init__", impatient)
        assert record(spec_of(dead, 1), RESULT, patience=30)
    other.close()
    assert tries == 2 and endings(dead) == 1


def test_a_table_that_cannot_be_written_is_said_and_is_no_error(dead: Session, capsys: pytest.CaptureFixture[str]):
    spec = spec_of(dead, 1)
    assert record(spec, RESULT, patience=0)
    dead.results.path.unlink(missing_ok=True)
    dead.results.path.mkdir()
    bring_up_to_date(spec)
    assert "results.tsv could not be written" in capsys.readouterr().err
    dead.results.path.rmdir()
    bring_up_to_date(spec)
    assert "4.5" in dead.results.path.read_text()


def test_a_run_that_the_ledger_does_not_know_is_not_recorded(dead: Session, capsys: pytest.CaptureFixture[str]):
    spec = spec_of(dead, 1).model_copy(update={"run": 7})
    assert not record(spec, RunEnded(run=7, outcome="scored", score=1.0), patience=0)
    assert "knows no run 7" in capsys.readouterr().err and endings(dead) == 0


def test_what_a_host_prints_is_bounded(tmp_path: Path):
    printed = Printed(BoundedLog(tmp_path / "host.log", LOG_BYTES))
    for number in range(20_000):
        print(f"{number} half of a pair \ud800", file=printed)
    text = (tmp_path / "host.log").read_text()
    assert len(text) <= LOG_BYTES and text.startswith("0 half of a pair ?") and "19999" in text[-100:]


@pytest.mark.parametrize("level", ["none", "landlock", "bubblewrap"])
@pytest.mark.skipif(sys.platform != "linux", reason="orphans of a run are found on Linux alone")
def test_a_run_says_that_no_process_of_it_is_left_where_it_is_sure(
    level: str, toy: Make, force: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    """Then nobody looks for any, among all processes of the machine."""
    force(level)
    session = toy("open('result.txt', 'w').write('1')\n")
    run(session)
    spec, looked = spec_of(session, 1), list[str]()
    assert ended(session).enforcement == level and spec.cleared.exists() == (level != "none")
    monkeypatch.setattr("autoresearch_mcp.executors.local.end_strays", lambda folder, *_: looked.append(folder) or [])
    assert LocalExecutor().end_strays(spec) == [] and bool(looked) == (level == "none")


def test_a_run_that_is_on_or_whose_host_was_killed_says_nothing(dead: Session):
    assert not spec_of(dead, 1).cleared.exists()
