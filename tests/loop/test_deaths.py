"""Deaths by SIGKILL, of real processes at every point where something could be left half done."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.run.slots import slots_folder
from conftest import ROOT, UNTIL_TOLD, connect, git, let_go, open_session, replace, run, settle_processes, supervisor_of, wait_for

Make = Callable[..., Session]
ONE, TWO = "open('result.txt', 'w').write('1.0')\n", "open('result.txt', 'w').write('2.0')\n"

POINTS = [
    ("apply", "os:replace", "before"),
    ("apply", "os:replace", "after"),
    ("apply", "autoresearch_mcp.loop.patches:apply_patch", "after"),
    ("run", "autoresearch_mcp.workspace:Workspace.commit_file", "before"),
    ("run", "autoresearch_mcp.workspace:Workspace.commit_file", "after"),
    ("run", "autoresearch_mcp.workspace:Workspace.set_ref", "before"),
    ("run", "autoresearch_mcp.workspace:Workspace.set_ref", "after"),
    ("run", "autoresearch_mcp.executors.local:write_atomic", "before"),
    ("run", "autoresearch_mcp.executors.local:try_lock", "before"),
    ("run", "autoresearch_mcp.executors.local:try_lock", "after"),
    ("run", "autoresearch_mcp.executors.local:LocalExecutor.start", "after"),
    ("keep", "autoresearch_mcp.loop.recovery:Recovery.settle", "before"),
    ("keep", "autoresearch_mcp.workspace:Workspace.set_ref", "before"),
    ("keep", "autoresearch_mcp.workspace:Workspace.set_ref", "after"),
    ("keep", "autoresearch_mcp.workspace:Workspace.move_branch", "after"),
    ("keep", "autoresearch_mcp.record.exports:Results.write", "before"),
    ("discard", "autoresearch_mcp.loop.worktree:Worktree.write", "before"),
    ("discard", "os:replace", "before"),
    ("discard", "os:replace", "after"),
    ("discard", "autoresearch_mcp.loop.worktree:Worktree.write", "after"),
    ("discard", "autoresearch_mcp.record.exports:Results.write", "before"),
]


def die(session: Session, step: str, point: str, moment: str) -> None:
    command = [sys.executable, "dying.py", str(session.workspace.root), step, point, moment]
    result = subprocess.run(
        command, cwd=Path(__file__).parent, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("step", "point", "moment"), POINTS)
def test_a_death_in_a_step_leaves_a_state_that_the_next_server_mends(toy: Make, step: str, point: str, moment: str):
    session = toy()
    run(session, "baseline")
    session.keep()
    if step != "apply":
        replace(session, TWO if step != "discard" else "open('result.txt', 'w').write('0.5')\n")
    if step in ("keep", "discard"):
        run(session, "two")
    die(session, step, point, moment)

    session = open_session(session.workspace.root)
    if session.state.running:
        wait_for(lambda: (session.refresh(), not session.state.running)[1])
    check_consistent(session)
    finish(session)
    check_consistent(session)
    assert session.state.best is not None and session.state.best.score == 2.0
    assert session.read().text == TWO


def finish(session: Session) -> None:
    """Goes on as an agent would, by the next allowed step, until 2.0 is the best."""
    for _ in range(8):
        best = session.state.best
        if best and best.score == 2.0:
            return
        match session.position().allowed[0]:
            case "keep":
                session.keep()
            case "discard":
                session.discard()
            case "run_experiment":
                run(session, "two")
            case "apply_patch" if session.position().phase == "failed":
                run(session, "again")
            case "apply_patch":
                replace(session, TWO)
            case step:
                raise AssertionError(step)
    raise AssertionError("the loop did not get there")


def check_consistent(session: Session) -> None:
    root, state = session.workspace.root, session.state
    Ledger(session.ledger.path).state()  # verifies the chain
    assert git(root, "rev-parse", state.started.branch) == state.head_commit
    for experiment in state.experiments:
        assert git(root, "rev-parse", f"refs/autoresearch/experiments/{experiment.number}") == experiment.committed.commit
        assert experiment.verdict is None or experiment.settled
    if session.position().phase == "ready":
        assert session.read().text == session.text_at(state.head_commit)
    assert git(root, "fsck", "--connectivity-only").find("missing") == -1


@pytest.mark.slow
def test_kill_of_the_supervisor_is_noticed_and_named_lost(toy: Make):
    session = toy("import time\nprint('up', flush=True)\ntime.sleep(300)\n")
    number, _ = session.run_experiment("endless")
    supervisor = supervisor_of(session, number)
    wait_for(lambda: supervisor.children())
    children = supervisor.children(recursive=True)
    supervisor.kill()
    wait_for(lambda: (session.refresh(), not session.state.running)[1])
    assert session.experiment(number).failure == "lost"
    assert session.experiment(number).score is None
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    with pytest.raises(NotAllowedError, match="gave no score"):
        session.keep()
    assert session.run_experiment("again")[0] == number  # it says nothing of the file
    session.stop()
    wait_for(lambda: not session.state.running)


def test_a_daemon_of_a_lost_run_is_ended_too(toy: Make):
    session = toy(
        "import subprocess, time\nsubprocess.Popen(['sleep', '299'], start_new_session=True)\nprint('up', flush=True)\ntime.sleep(300)\n"
    )
    number, _ = session.run_experiment("daemon")
    supervisor = supervisor_of(session, number)
    wait_for(lambda: len(supervisor.children(recursive=True)) >= 2)
    children = supervisor.children(recursive=True)
    supervisor.kill()
    session = open_session(session.workspace.root)
    wait_for(lambda: (session.refresh(), session.experiment(number).failure == "lost")[1])
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def servers_of(root: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"serve --workspace {root}"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


async def start_and_die(root: Path) -> None:
    """A client starts a run; then server and client are killed together, as by a crash of the terminal."""
    with anyio.CancelScope() as scope:
        async with connect(root) as client:
            await client.call_tool("run_experiment", {"description": "baseline", "wait_seconds": 0})
            for server in servers_of(root):
                os.kill(server, signal.SIGKILL)
            scope.cancel()


@pytest.mark.slow
def test_kill_of_server_and_client_leaves_the_run_alive_and_its_result_recorded(toy: Make):
    session = toy(UNTIL_TOLD.replace("1.0", "7"))
    anyio.run(start_and_die, session.workspace.root)
    assert session.state.running
    let_go(session)
    wait_for(lambda: not session.state.running)
    settle_processes(session, 1)
    assert session.experiment(1).score == 7
    assert "\tscored\t" in session.results.path.read_text()

    async def next_client() -> dict[str, object]:
        async with connect(session.workspace.root) as client:
            return (await client.call_tool("get_score", {})).structured_content or {}

    assert anyio.run(next_client)["score"] == 7


@pytest.mark.slow
def test_a_run_that_dies_with_the_machine_leaves_no_slot_taken(toy: Make):
    session = toy("import time\ntime.sleep(300)\n")
    number, _ = session.run_experiment("endless")
    supervisor = supervisor_of(session, number)
    wait_for(lambda: supervisor.children())
    supervisor.kill()
    settle_processes(session, number)
    assert slots_folder().exists()
    session = open_session(session.workspace.root)
    replace(session, ONE)
    assert run(session, "next") == 2
    assert session.experiment(2).score == 1.0
