"""The talk between a run and its supervisor."""

import json
import sqlite3
from collections.abc import Callable

import pytest

from autoresearch_mcp.loop.session import Session
from conftest import TOY, ended, log_of, run, settle_processes, spec_of, wait_for

Make = Callable[..., Session]
DONE = "open('result.txt', 'w').write('1')\n"


HARNESS = """
import json, os, socket
server = socket.socket(fileno=int(os.environ["AUTORESEARCH_SOCKET"]))
def ask(**message):
    server.sendall(json.dumps(message).encode() + b"\\n")
    data, descriptors, _, _ = socket.recv_fds(server, 65536, 4)
    return json.loads(data), descriptors
"""
WITH_DATA = (
    TOY
    + '\n[data]\nprepare = ["{python}", "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / \'train.txt\').write_text(\'words\'); (p / \'key.txt\').write_text(\'secret\')", "{data}"]\ntrain = ["train.txt"]\nsealed = ["key.txt"]\n'
)


def with_data(toy: Make, work: str, toml: str = WITH_DATA, **changes: str) -> Session:
    session = toy(HARNESS + work, toml=toml, **changes)
    session.data.prepare(session.workspace.root)
    return session


@pytest.mark.slow
def test_data_is_handed_over_read_only_when_asked_and_that_starts_the_budget(toy: Make):
    work = """
import time
assert not [name for name in os.listdir() if "train" in name], os.listdir()
time.sleep(1.0)
reply, (fd,) = ask(op="data")
assert reply["files"] == ["train.txt"] and reply["budget"] == 20.0
assert os.read(fd, 100) == b"words"
try:
    os.write(fd, b"x")
except OSError:
    open("result.txt", "w").write("1")
"""
    session = with_data(toy, work)
    run(session)
    assert ended(session).score == 1.0, ended(session).excerpt
    assert ended(session).seconds["startup"] >= 1.0


@pytest.mark.slow
def test_start_up_beyond_what_is_free_is_charged_to_the_budget(toy: Make):
    work = """
import time
time.sleep(1.5)
reply, _ = ask(op="data")
open("result.txt", "w").write(str(reply["budget"]))
"""
    session = with_data(toy, work, budget_seconds="20\nstartup_seconds = 1")
    run(session)
    assert 15 < (ended(session).score or 0) <= 19.5, ended(session)


@pytest.mark.slow
def test_a_run_that_never_asks_for_data_times_out_at_start_up(toy: Make):
    session = with_data(toy, "import time\ntime.sleep(300)\n", budget_seconds="0.5\nstartup_seconds = 0.5")
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("timeout", "timeout_startup")


def test_a_run_submits_once_and_is_told_its_score(toy: Make):
    work = """
ask(op="data"); ask(op="trained")
open("result.txt", "w").write("3.5")
reply, _ = ask(op="submit")
print("first", reply)
open("result.txt", "w").write("99")
print("second", ask(op="submit")[0])
print("data", ask(op="data")[0])
print("nonsense", ask(op="give me 99")[0])
"""
    session = with_data(toy, work)
    run(session)
    assert ended(session).score == 3.5
    log = log_of(session, 1)
    assert "first {'score': 3.5}" in log
    assert log.count("error") == 3


CHECKER = """
import json, sys
print("loaded", flush=True)
assert sys.stdin.readline() == "declared\\n"
word = open("declared.txt").read()
print("a library warns", flush=True)
print(json.dumps({"refused": "no good word", "failure": "not_causal"} if word == "bad" else {"marks": {"word": word}}), flush=True)
assert sys.stdin.readline() == "score\\n"
print(json.dumps({"score": float(open("result.txt").read()), "marks": {"word": word}}))
"""
DECLARES = WITH_DATA.replace('outputs = ["result.txt"]', 'outputs = ["result.txt"]\ndeclares = "declared.txt"').replace(
    'command = ["{python}", "score.py"]', f'command = ["{{python}}", "-c", {json.dumps(CHECKER)}]\nstarts_early = true'
)


def test_a_run_that_must_declare_gets_data_only_after_its_declaration_is_accepted(toy: Make):
    work = """
print("early", ask(op="data")[0])
open("declared.txt", "w").write("good")
print("declared", ask(op="declare")[0])
open("declared.txt", "w").write("bad")
print("again", ask(op="declare")[0])
_, (fd,) = ask(op="data")
print("late", ask(op="declare")[0])
open("result.txt", "w").write("3")
print("score", ask(op="submit")[0])
"""
    session = with_data(toy, work, toml=DECLARES)
    run(session)
    log = log_of(session, 1)
    assert "early {'error': \"this task's runs declare declared.txt first" in log, log
    assert "declared {'marks': {'word': 'good'}}" in log and "again {'error': 'a run declares once" in log
    assert "late {'error': 'a run declares once" in log and "score {'score': 3.0}" in log
    assert ended(session).score == 3.0 and ended(session).marks == {"word": "good"}
    assert list(ended(session).seconds) == ["queued", "startup", "check", "training", "evaluation"]


def test_a_declaration_that_is_refused_ends_the_run_before_it_sees_data(toy: Make):
    work = """
import time
open("declared.txt", "w").write("bad")
print("told", ask(op="declare")[0])
time.sleep(300)
"""
    session = with_data(toy, work, toml=DECLARES)
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("refused", "not_causal")
    assert "no good word" in ended(session).excerpt and "training" not in ended(session).seconds


@pytest.mark.parametrize("left", ["os.symlink('/etc/passwd', 'declared.txt')", "os.mkfifo('declared.txt')", "pass"])
def test_a_declaration_that_is_no_file_of_its_own_ends_the_run(toy: Make, left: str):
    session = with_data(toy, f"{left}\nprint(ask(op='declare'))\nimport time\ntime.sleep(300)\n", toml=DECLARES)
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("crash", "error")
    assert "declared.txt" in ended(session).excerpt


def test_the_run_hears_its_score_in_the_digits_that_an_agent_sees(toy: Make):
    work = """
ask(op="data"); ask(op="trained")
open("result.txt", "w").write("1.23456789012")
print(ask(op="submit")[0])
"""
    session = with_data(toy, work)
    run(session)
    assert ended(session).score == 1.23456789012 and "{'score': 1.234568}" in log_of(session, 1)


def test_garbage_on_the_control_socket_does_no_harm(toy: Make):
    work = "server.sendall(b'\\x00\\xff{{{{\\n[1,2]\\n' + b'x' * 200000)\n" + DONE
    session = with_data(toy, work)
    run(session)
    assert ended(session).outcome in ("scored", "crash")


@pytest.mark.slow
def test_a_run_hears_its_score_only_when_it_is_on_record(toy: Make):
    """While the ledger cannot be written, the run waits for its answer, and nobody knows a score."""
    work = """
ask(op="data"); ask(op="trained")
open("result.txt", "w").write("3.5")
print("submits", flush=True)
print("told", ask(op="submit")[0], flush=True)
"""
    session = with_data(toy, work)
    number, _ = session.run_experiment("waits for its row")
    wait_for(lambda: "submits" in log_of(session, number))
    other = sqlite3.connect(session.ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        wait_for(lambda: session.progress().phase == "done")
        assert "told" not in log_of(session, number)
    finally:
        other.execute("ROLLBACK")
        other.close()
    wait_for(lambda: not session.state.running)
    wait_for(lambda: "told {'score': 3.5}" in log_of(session, number))
    assert ended(session).score == 3.5


@pytest.mark.slow
def test_the_seconds_of_scoring_hold_nothing_of_the_goodbye(toy: Make):
    work = """
import time
ask(op="data"); ask(op="trained")
open("result.txt", "w").write("3.5")
ask(op="submit")
for _ in range(800):
    if os.path.exists("go"):
        print("bye", flush=True)
        break
    time.sleep(0.01)
"""
    session = with_data(toy, work)
    number, _ = session.run_experiment("takes its time to leave")
    wait_for(lambda: not session.state.running)
    spec = spec_of(session, number)
    assert session.executor.is_alive(spec), "the row is there before the run has left"
    assert set(ended(session).seconds) == {"queued", "startup", "training", "export", "evaluation"}
    (spec.work / "go").touch()
    settle_processes(session, number)
    assert "bye" in log_of(session, number)


@pytest.mark.parametrize("leaving", ["sys.exit(1)", "server.close(); time.sleep(300)"])
@pytest.mark.slow
def test_what_was_submitted_is_scored_once_whatever_the_run_does_meanwhile(toy: Make, leaving: str):
    """Exits at once, or closes the socket and stays: it is scored, and ended."""
    work = f"""
import sys, time
ask(op="data"); ask(op="trained")
open("result.txt", "w").write("3.5")
server.sendall(b'{{"op": "submit"}}\\n')
{leaving}
"""
    slow = WITH_DATA.replace(
        '["{python}", "score.py"]', '["{python}", "-c", "import time; time.sleep(1); print(open(\'result.txt\').read())"]'
    )
    assert slow != WITH_DATA
    session = with_data(toy, work, toml=slow)
    run(session)
    assert (ended(session).outcome, ended(session).score) == ("scored", 3.5), ended(session)
