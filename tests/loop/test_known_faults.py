"""Faults found in the code of other autoresearch servers; each has a test here that would find it in ours."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.views import build
from conftest import TOY, UNTIL_TOLD, connect, git, let_go, log_of, open_session, replace, run, supervisor_of, text_of, wait_for

Make = Callable[..., Session]


def write(value: object) -> str:
    return f"open('result.txt', 'w').write('{value}')\n"


@pytest.mark.slow
def test_the_best_shown_is_the_best_not_the_baseline(toy: Make):
    session = toy()
    run(session)
    session.keep()
    replace(session, write(2))
    run(session)
    session.keep()
    status = build.status(session)
    assert (status.baseline_score, status.best_score, status.best_experiment) == (1.0, 2.0, 2)
    replace(session, write(1.5))  # better than the baseline, worse than the best
    run(session)
    assert build.result(session).best_score == 2.0
    with pytest.raises(NotAllowedError):
        session.keep()


async def read_of_a_score(session: Session) -> tuple[str, float]:
    async with connect(session.workspace.root) as client:
        result = await client.call_tool("get_score", {})
        assert result.structured_content is not None
        return text_of(result), result.structured_content["score"]


@pytest.mark.slow
def test_the_agent_reads_six_decimals_of_the_metric_and_the_ledger_keeps_all(toy: Make):
    import anyio

    session = toy(write("0.997912345678"))
    run(session)
    text, score = anyio.run(read_of_a_score, session)
    assert "0.997912" in text and score == 0.997912
    assert session.experiment(1).score == 0.997912345678


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "0.0", "-2.5"])
def test_zero_and_negative_scores_count(toy: Make, value: str):
    session = toy(write(value), toml=TOY.replace('"maximize"', '"minimize"'))
    run(session)
    session.keep()
    assert session.state.best is not None and session.state.best.score == float(value)
    assert build.history(session).best[0].score == float(value)
    replace(session, write(float(value) - 1))
    run(session)
    assert build.result(session).gain == [1.0]
    session.keep()


@pytest.mark.slow
def test_a_crashed_first_run_is_not_the_baseline(toy: Make):
    session = toy("raise SystemExit(1)\n")
    run(session)
    session.discard()
    assert session.state.baseline is None and build.status(session).baseline_score is None
    replace(session, write(-5))
    run(session)
    assert session.keep().experiment.number == 2  # nothing to beat yet: not a score of zero, not the crash


@pytest.mark.slow
def test_discard_leaves_the_users_other_files_alone(toy: Make):
    session = toy()
    for folder in (session.workspace.root, session.worktree.root):
        (folder / "precious.txt").write_text("precious")
        (folder / "program.md").write_text("edited by the user")
    run(session)
    session.keep()
    replace(session, write(0))
    run(session)
    session.discard()
    for folder in (session.workspace.root, session.worktree.root):
        assert (folder / "precious.txt").read_text() == "precious"
        assert (folder / "program.md").read_text() == "edited by the user"
    committed = git(
        session.workspace.root, "diff", "--name-only", session.state.started.base_commit, "refs/autoresearch/experiments/2"
    )
    assert committed == "work.py"


def test_what_was_never_run_cannot_be_kept(toy: Make):
    session = toy()
    run(session)
    session.keep()
    replace(session, write(100))
    with pytest.raises(NotAllowedError, match="no result to judge"):
        session.keep()


@pytest.mark.slow
def test_the_gate_survives_a_restart(toy: Make):
    session = toy()
    run(session)
    session.keep()
    replace(session, write(0))
    run(session)
    again = open_session(session.workspace.root)
    assert again.position().phase == "scored"
    with pytest.raises(NotAllowedError, match="worse"):
        again.keep()
    with pytest.raises(NotAllowedError, match="awaits its verdict"):
        again.run_experiment("next")


def test_a_run_that_ignores_sigterm_is_killed(toy: Make):
    session = toy("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(300)\n")
    number, _ = session.run_experiment("stubborn")
    wait_for(lambda: "up" in log_of(session, number))
    session.stop()
    wait_for(lambda: not session.state.running)
    assert session.experiment(number).failure == "killed"


def test_grandchildren_that_left_their_session_are_ended_too(toy: Make):
    daemon = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print('daemon', os.getpid(), flush=True)\n"
        "        time.sleep(300)\n"
        "    os._exit(0)\n"
        "os.wait()\n" + UNTIL_TOLD
    )
    session = toy(daemon)
    number, _ = session.run_experiment("daemon")
    wait_for(lambda: "daemon" in log_of(session, number))
    # The number it prints is its own in whatever namespace it runs; the supervisor's tree tells the outer one.
    tree = supervisor_of(session, number).children(recursive=True)
    let_go(session)
    wait_for(lambda: not session.state.running)
    wait_for(lambda: not any(process.is_running() and process.status() != "zombie" for process in tree))
    assert session.experiment(number).score == 1.0


def test_stdio_is_framed_by_lines(toy: Make):
    session = toy()
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(session.workspace.root)]
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(hello) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert not answer.lower().startswith("content-length")
    assert json.loads(answer)["result"]["serverInfo"]["name"] == "autoresearch"
    server.stdin.close()
    assert server.wait(10) == 0


def test_results_tsv_is_current_after_every_step(toy: Make):
    session = toy()
    run(session)
    assert "\tscored\t" in session.results.path.read_text()
    session.keep()
    assert session.results.path.read_text() == Results(session.ledger, Path()).text()
    assert "\tkeep\t" in session.results.path.read_text()
