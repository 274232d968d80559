"""A night with real processes: agents that end, hang, fork, flood and fail, each started as the command line would."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.night.diary import Diary
from autoresearch_mcp.night.night import Night
from autoresearch_mcp.night.patience import FEW
from autoresearch_mcp.night.recipes import Recipe
from conftest import TOY, UNTIL_TOLD, is_over, let_go, open_session, run, supervisor_of, wait_for

HERE = Path(__file__).parent
Make = Callable[..., Session]

pytestmark = pytest.mark.slow


@contextmanager
def night(
    root: Path, agent: str, hours: float = 1.0, stall: str = "600", morning: str = "status"
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / "spend.py"), str(root), str(hours), stall, morning]
    command += [sys.executable, str(HERE / "agents.py"), agent]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def log_of(root: Path) -> str:
    path = root / ".autoresearch" / "night.log"
    return path.read_text() if path.exists() else ""


def told(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    return output


def command_line(root: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoresearch_mcp.cli", name, "--workspace", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def written(path: Path) -> int:
    """A number that an agent leaves in a file."""
    wait_for(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_an_agent_that_ends_is_started_again_until_it_is_told_to_stop_and_the_morning_comes(notes: Session):
    root = notes.workspace.root
    with night(root, "works") as process:
        wait_for(lambda: log_of(root).count("it asked a question") >= 2)
        assert "is on in" in command_line(root, "night", "--", sys.executable).stderr
        assert command_line(root, "stop", "--night").returncode == 0
        output = told(process)
    assert process.returncode == 0
    state = open_session(root).state
    assert [experiment.status for experiment in state.experiments] == ["keep"]  # one step a start: the run, then the verdict
    prompts = (root / "prompts").read_text()
    assert "This is start 1 of the night." in prompts
    assert "start 2 of the night; the one before is over: it asked a question" in prompts
    assert "the night is over: it was asked to end" in output and "1 new experiments, 1 kept" in output
    assert "autoresearch-mcp status" in log_of(root) and "Raise score" in log_of(root)  # the morning's command, and what it said
    assert "No night is on" in command_line(root, "stop", "--night").stderr


def test_a_night_ends_when_the_session_is_done_and_says_so(toy: Make):
    tells = '["{python}", "-c", "import sys; open(\'told\', \'a\').write(sys.stdin.read() + chr(10))"]'
    session = toy(toml=TOY + f"\n[limits]\nexperiments = 1\n[notify]\non_end = {tells}\n")
    root = session.workspace.root
    with night(root, "works") as process:
        output = told(process)
    assert process.returncode == 0
    assert "the night is over: the session is done: 1 experiments, as many as limits.experiments allows" in output
    (line,) = (root / "told").read_text().splitlines()
    assert '"event": "end"' in line and "limits.experiments" in line


def test_an_agent_that_stands_still_is_ended_with_all_that_it_started(toy: Make):
    session = toy(UNTIL_TOLD)
    root = session.workspace.root
    with night(root, "hangs", stall="3+") as process:
        agent, daemon = written(root / "agent"), written(root / "daemon")
        wait_for(lambda: session.state.experiments)
        host = supervisor_of(session, 1).pid
        assert os.getsid(daemon) != os.getsid(agent)
        try:
            psutil.Process(agent).wait(4.5)  # longer than what counts as standing still, but a run is on
            raise AssertionError("it was ended while a run was on")
        except psutil.TimeoutExpired:
            pass
        assert not is_gone(host)
        let_go(session)
        wait_for(lambda: is_gone(agent) and is_gone(daemon))
        wait_for(lambda: "it stood still" in log_of(root))
        process.terminate()
        told(process)
    assert session.experiment(1).score == 1.0


def test_the_end_of_a_night_ends_the_agent_and_no_run(toy: Make):
    session = toy(UNTIL_TOLD)
    root = session.workspace.root
    with night(root, "hangs") as process:
        agent, daemon = written(root / "agent"), written(root / "daemon")
        host = supervisor_of(session, 1).pid
        process.send_signal(signal.SIGHUP)  # the terminal was closed
        wait_for(lambda: "the night goes on" in log_of(root))
        process.send_signal(signal.SIGINT)
        told(process)
    assert process.returncode == 0
    assert is_gone(agent) and is_gone(daemon) and not is_gone(host)
    let_go(session)
    wait_for(lambda: is_over(session, 1))
    assert session.experiment(1).score == 1.0


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_a_morning_that_lasts_is_ended_by_asking_again(again: signal.Signals, notes: Session):
    run(notes)
    notes.keep()
    root = notes.workspace.root
    with night(root, "sleeps", morning="watch") as process:
        written(root / "agent")
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "autoresearch-mcp watch" in log_of(root))
        process.send_signal(again)
        told(process)
    assert process.returncode == 0 and "not waited for" in log_of(root)


def test_a_machine_that_goes_down_is_kept_by_no_morning(notes: Session):
    run(notes)
    notes.keep()
    root = notes.workspace.root
    with night(root, "sleeps") as process:
        agent = written(root / "agent")
        process.terminate()
        told(process)
    assert process.returncode == 0 and is_gone(agent) and "autoresearch-mcp status" not in log_of(root)


def test_an_agent_dies_with_a_night_that_is_killed(notes: Session):
    root = notes.workspace.root
    with night(root, "sleeps") as process:
        agent = written(root / "agent")
        process.kill()
        wait_for(lambda: is_gone(agent))
    assert "No night is on" in command_line(root, "stop", "--night").stderr  # and its lock went with it


def test_an_agent_that_cannot_work_ends_the_night(notes: Session):
    with night(notes.workspace.root, "quits") as process:
        output = told(process)
    assert process.returncode == 1
    assert f"started {FEW} times and never called a tool" in output
    log = log_of(notes.workspace.root)
    assert log.count("it failed (exit status 1)") == FEW
    assert "| Invalid API key · Fix external API key" in log and "\x1b" not in log
    assert "autoresearch-mcp status" not in log  # there is nothing to look at in the morning


def test_a_limit_is_waited_for(notes: Session):
    with night(notes.workspace.root, "is_limited", hours=3 / 3600) as process:
        output = told(process)
    assert process.returncode == 0 and "its model's provider has a limit" in output and "its hours are up" in output


def test_a_flood_of_output_is_taken_and_not_kept(notes: Session):
    root = notes.workspace.root
    with night(root, "floods") as process:
        wait_for(lambda: "it failed (exit status 3)" in log_of(root))
        process.terminate()
        told(process)
    assert "all work and no play" in log_of(root) and len(log_of(root)) < 20_000  # of 50 MB a start


@pytest.mark.parametrize(
    "fault", [sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left"), KeyError("x")], ids=repr
)
def test_a_fault_while_looking_is_noted_once_and_ends_no_night(fault: Exception, notes: Session, monkeypatch: pytest.MonkeyPatch):
    spent = Night(notes, Recipe(["agent"]), Diary(log := notes.workspace.root / "log"), 1.0, 1.0, ())
    seen = spent._look()

    def fails(_: Session) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(Session, "refresh", fails)
        assert spent._look() == spent._look() == spent._seen
    assert log.read_text().count("cannot look") == 1 and type(fault).__name__ in log.read_text()
    assert spent._look() == seen


def test_a_program_that_is_not_there_is_said_at_once(notes: Session):
    root = notes.workspace.root
    answer = command_line(root, "night", "--", "no-such-agent")
    assert answer.returncode == 1 and "'no-such-agent' is not found" in answer.stderr
