"""What every executor promises, tried on each. A new one is one more line in EXECUTORS."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, SessionStarted
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.run.processes import strays
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.spec import RunSpec
from conftest import SCORE, lay_out, wait_for

EXECUTORS: list[Callable[[], Executor]] = [LocalExecutor]
SLOW = "import time\nprint('up', flush=True)\ntime.sleep(300)\n"
QUICK = "open('result.txt', 'w').write('2.5')\n"


@pytest.fixture(params=EXECUTORS, ids=lambda make: make.__name__)
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param()


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """Of a run that the ledger knows and nobody has started."""
    spec = lay_out(tmp_path)
    ledger = Ledger(spec.ledger)
    with ledger.transaction() as transaction:
        transaction.append(
            SessionStarted(
                tag=spec.tag,
                branch="autoresearch/test",
                base_commit="0" * 40,
                file="work.py",
                metric="score",
                direction="maximize",
                noise_floor=0.0,
                task_sha256="",
            )
        )
        transaction.append(
            ExperimentCommitted(
                experiment=1,
                session=spec.tag,
                commit="1" * 40,
                parent="0" * 40,
                file_sha256="",
                lines=1,
                added=0,
                removed=0,
                description="one",
            )
        )
        transaction.append(RunStarted(run=1, experiment=1, seed=42, conditions=""))
    ledger.close()
    return spec


def files(work: str) -> dict[str, bytes]:
    return {"work.py": work.encode(), "score.py": SCORE.encode()}


def recorded(spec: RunSpec) -> list[RunEnded]:
    """All rows that end a run, in the order in which they were written."""
    connection = sqlite3.connect(spec.ledger)
    bodies = [body for (body,) in connection.execute("SELECT body FROM events ORDER BY seq")]
    connection.close()
    return [RunEnded.model_validate_json(body) for body in bodies if json.loads(body)["kind"] == "ended"]


def host_of(executor: Executor, spec: RunSpec) -> psutil.Process:
    wait_for(lambda: executor.progress(spec).pid)
    return psutil.Process(executor.progress(spec).pid)


def up(spec: RunSpec) -> bool:
    return spec.log.exists() and b"up" in spec.log.read_bytes()


def test_a_run_is_alive_until_its_one_result_is_recorded(executor: Executor, spec: RunSpec):
    executor.start(spec, files(QUICK))
    assert executor.is_alive(spec)
    wait_for(lambda: not executor.is_alive(spec))
    (row,) = recorded(spec)
    assert (row.run, row.outcome, row.score) == (1, "scored", 2.5)
    assert executor.collect(spec) == row
    assert "\tscored\tone" in spec.results.read_text()


def test_starting_a_run_that_is_alive_changes_nothing(executor: Executor, spec: RunSpec):
    executor.start(spec, files(SLOW))
    wait_for(lambda: up(spec))
    executor.start(spec, files(QUICK))
    assert executor.is_alive(spec) and b"sleep" in (spec.work / "work.py").read_bytes()
    executor.stop(spec)
    wait_for(lambda: not executor.is_alive(spec))
    assert [row.failure for row in recorded(spec)] == ["killed"]


def test_a_run_that_cannot_be_laid_out_is_refused_and_nothing_runs(executor: Executor, spec: RunSpec, tmp_path: Path):
    public = spec.task.model_copy(update={"data": spec.task.data.model_copy(update={"public": ["missing.json"]})})
    lacking = spec.model_copy(update={"data": tmp_path / "nowhere", "task": public})
    with pytest.raises(WorkspaceError, match="Run 1 could not be started .*missing.json"):
        executor.start(lacking, files(QUICK))
    assert not executor.is_alive(lacking) and executor.collect(lacking) is None
    executor.start(spec, files(QUICK))  # and nothing is in the way of the next try
    wait_for(lambda: recorded(spec))


def test_progress_is_told_while_it_runs_and_is_queued_where_nothing_is_known(executor: Executor, spec: RunSpec):
    assert executor.progress(spec) == Progress()
    executor.start(spec, files(SLOW))
    wait_for(lambda: executor.progress(spec).phase == "training")
    progress = executor.progress(spec)
    assert progress.budget == 20.0 and progress.limit == 21.0 and progress.slot and progress.elapsed >= 0
    executor.stop(spec)
    wait_for(lambda: not executor.is_alive(spec))
    spec.progress.write_text("{torn")
    assert executor.progress(spec) == Progress()


def test_stopping_may_be_asked_at_any_time_and_again(executor: Executor, spec: RunSpec):
    executor.stop(spec)
    executor.start(spec, files(SLOW))
    wait_for(lambda: up(spec))
    executor.stop(spec)
    executor.stop(spec)
    wait_for(lambda: not executor.is_alive(spec))
    executor.stop(spec)
    (row,) = recorded(spec)
    assert (row.outcome, row.failure) == ("crash", "killed")


def test_what_a_dead_host_left_is_ended_and_has_no_result(executor: Executor, spec: RunSpec):
    daemon = "import subprocess\nsubprocess.Popen(['sleep', '297'], start_new_session=True)\n"
    executor.start(spec, files(daemon + SLOW))
    wait_for(lambda: up(spec))
    executor.clean_up(spec)
    assert executor.is_alive(spec), "cleaning up leaves a living run alone"
    (spec.work / "result.txt").write_text("large")
    host_of(executor, spec).send_signal(signal.SIGKILL)
    wait_for(lambda: not executor.is_alive(spec))
    executor.clean_up(spec)
    executor.clean_up(spec)
    wait_for(lambda: not strays(str(spec.folder)))
    assert not (spec.work / "result.txt").exists()
    assert executor.collect(spec) is None and recorded(spec) == []


def test_a_result_is_recorded_once_though_the_table_cannot_be_written(executor: Executor, spec: RunSpec):
    spec.results.mkdir()
    executor.start(spec, files(QUICK))
    wait_for(lambda: not executor.is_alive(spec))
    assert [row.score for row in recorded(spec)] == [2.5]
    assert "results.tsv could not be written" in spec.host_log.read_text()


def test_nothing_that_a_run_of_another_version_left_is_an_error(executor: Executor, spec: RunSpec, tmp_path: Path):
    for left in ("", "{}", "[1]", '{"run": 1, "outcome": "won"}', '{"run": 2, "outcome": "crash"}'):
        spec.ended.write_text(left)
        assert executor.collect(spec) is None
    gone = spec.model_copy(update={"folder": tmp_path / "gone"})
    assert not executor.is_alive(gone) and executor.collect(gone) is None and executor.progress(gone) == Progress()
    executor.stop(gone)
    executor.clean_up(gone)
    assert not gone.folder.exists()


def test_a_run_needs_nobody_who_started_it(executor: Executor, spec: RunSpec):
    """It is in a session of its own, and its output goes to files, never to a pipe that nobody drains."""
    executor.start(spec, files(SLOW))
    wait_for(lambda: up(spec))
    host = host_of(executor, spec)
    assert os.getsid(host.pid) == host.pid
    if Path("/proc").exists():
        assert [os.readlink(f"/proc/{host.pid}/fd/{number}") for number in (0, 1, 2)] == ["/dev/null", *[str(spec.host_log)] * 2]
    executor.stop(spec)
    wait_for(lambda: not executor.is_alive(spec))
