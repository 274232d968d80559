from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError, NotFoundError, PatchError
from autoresearch_mcp.loop.rules import PLATEAU
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views import references
from conftest import (
    TOY,
    UNTIL_TOLD,
    WAITS_FOR_DATA,
    WORK,
    git,
    is_decided,
    is_over,
    let_go,
    log_of,
    open_session,
    replace,
    run,
    supervisor_of,
    wait_for,
)

Make = Callable[..., Session]


def write(value: object) -> str:
    return f"open('result.txt', 'w').write('{value}')\n"


def baseline(session: Session) -> Session:
    run(session, "baseline")
    session.keep()
    return session


@pytest.mark.slow
def test_the_loop(toy: Make):
    session = toy()
    assert session.position().phase == "baseline"
    assert run(session, "baseline") == 1
    assert list(session.position().allowed) == ["keep"]
    session.keep("where we start")
    assert session.position().phase == "ready"
    session.apply_patch("@@\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('2.0')\n")
    assert session.position().phase == "edited"
    run(session, "two")
    assert list(session.position().allowed) == ["keep", "discard"]
    session.keep()
    assert session.state.best is not None and session.state.best.score == 2.0
    assert git(session.workspace.root, "rev-parse", session.state.started.branch) == session.state.best.committed.commit
    replace(session, write(1.5))
    run(session, "one and a half")
    assert list(session.position().allowed) == ["discard"]
    session.discard("no good")
    assert session.read().text == write("2.0")
    assert git(session.workspace.root, "rev-parse", "refs/autoresearch/experiments/3") == session.experiment(3).committed.commit


def test_the_baseline_comes_first(toy: Make):
    session = toy()
    with pytest.raises(NotAllowedError, match="run_experiment with no change"):
        session.apply_patch("@@\n-x\n+y\n")
    for step in (session.keep, session.discard, session.stop):
        with pytest.raises(NotAllowedError, match="run_experiment"):
            step()
    session.worktree.path.write_text(write(5))
    with pytest.raises(NotAllowedError, match="baseline"):
        session.run_experiment("cheat")
    session.discard()
    assert session.read().text == write("1.0")


def test_a_scored_baseline_can_only_be_kept(toy: Make):
    session = toy()
    run(session)
    with pytest.raises(NotAllowedError, match="only be kept"):
        session.discard()


def test_one_run_at_a_time_and_no_step_beside_it(toy: Make):
    session = toy(UNTIL_TOLD)
    number, note = session.run_experiment("slow")
    assert (number, note) == (1, "")
    assert session.run_experiment("another") == (1, "a run is on already; this is its state")
    for step in (session.keep, session.discard, lambda: session.apply_patch("@@\n-x\n+y\n")):
        with pytest.raises(NotAllowedError, match="is running|is still running|no result"):
            step()
    assert len(session.state.experiments) == 1
    let_go(session)
    wait_for(lambda: not session.state.running)


@pytest.mark.slow
def test_a_result_must_be_judged_before_the_next_step(toy: Make):
    session = baseline(toy())
    replace(session, write(2))
    run(session)
    with pytest.raises(NotAllowedError, match="call keep"):
        session.apply_patch("@@\n-x\n+y\n")
    with pytest.raises(NotAllowedError, match="awaits its verdict"):
        session.run_experiment("next")


@pytest.mark.slow
def test_keep_is_refused_when_worse_and_when_equal_but_not_shorter(toy: Make):
    session = baseline(toy())
    replace(session, write(0.5))
    run(session)
    with pytest.raises(NotAllowedError, match="worse than the best 1.000000"):
        session.keep()
    session.discard()
    replace(session, "x = 1\n" + write("1.0"))
    run(session)
    with pytest.raises(NotAllowedError, match="equal to the best"):
        session.keep()


@pytest.mark.slow
def test_equal_and_shorter_is_a_simplification(toy: Make):
    session = baseline(toy("x = 1\n" + write(1)))
    replace(session, write(1))
    number, _ = session.run_experiment("shorter")
    wait_for(lambda: is_over(session, number))
    assert (
        session.position().allowed == ("get_score", "discard") and "the server runs experiment 2 again" in session.position().next
    )
    with pytest.raises(NotAllowedError, match="one run does not show that it is no worse"):
        session.keep()
    wait_for(lambda: is_decided(session, number))
    kept = session.keep().experiment
    assert kept.scores == [1.0, 1.0] and kept.verdict is not None and "1 lines fewer" in kept.verdict.reason


@pytest.mark.slow
def test_within_the_noise_floor_better_is_not_better(toy: Make):
    session = baseline(toy(toml=TOY.replace('direction = "maximize"', 'direction = "maximize"\nnoise_floor = 0.1')))
    replace(session, write(1.05))
    run(session)
    with pytest.raises(NotAllowedError, match="equal to the best 1.000000 .experiment 1. within the 0.1 that the task states"):
        session.keep()
    session.discard()
    replace(session, write(1.2))
    run(session)
    session.keep()


@pytest.mark.slow
def test_lower_is_better_where_the_task_says_so(toy: Make):
    session = baseline(toy(toml=TOY.replace('"maximize"', '"minimize"')))
    replace(session, write(2))
    run(session)
    with pytest.raises(NotAllowedError, match="worse"):
        session.keep()
    session.discard()
    replace(session, write(-1))
    run(session)
    assert session.keep().experiment.score == -1


@pytest.mark.slow
def test_a_crash_can_be_mended_or_discarded_but_not_kept(toy: Make):
    session = baseline(toy())
    replace(session, "raise ValueError('no')\n")
    run(session, "crashes")
    assert (session.experiment(2).status, session.experiment(2).failure) == ("crash", "error")
    assert "ValueError: no" in (session.experiment(2).last or pytest.fail("no result")).excerpt
    with pytest.raises(NotAllowedError, match="gave no score"):
        session.keep()
    with pytest.raises(NotAllowedError, match="as it was when experiment 2 failed"):
        session.run_experiment("again")
    assert list(session.position().allowed) == ["apply_patch", "discard"]
    assert session.position().next == "call apply_patch to mend experiment 2 (error), or discard"
    replace(session, write(3))
    assert session.position().allowed[0] == "run_experiment" and "run_experiment" in session.position().next
    run(session, "mended")
    assert session.experiment(2).status == "crash"
    assert session.keep().experiment.number == 3
    assert session.experiment(3).committed.parent == session.experiment(1).committed.commit


@pytest.mark.slow
def test_a_crashed_baseline_is_no_baseline(toy: Make):
    session = toy("raise SystemExit(3)\n")
    run(session, "baseline")
    assert session.state.best is None and session.state.baseline is None
    replace(session, write(1))
    run(session, "first that works")
    session.keep()
    assert session.state.baseline is not None and session.state.baseline.number == 2


def test_failures_are_named_by_the_tasks_patterns(toy: Make):
    session = toy("raise MemoryError\n")
    run(session)
    assert session.experiment(1).failure == "oom"


@pytest.mark.slow
def test_replicates_measure_the_noise(toy: Make):
    session = toy("import os\nopen('result.txt', 'w').write(os.environ['AUTORESEARCH_SEED'])\n")
    run(session)
    session.keep()
    with pytest.raises(NotAllowedError, match="replicate=true"):
        session.run_experiment("same")
    assert run(session, "again", replicate=True) == 1
    assert session.experiment(1).scores == [42.0, 43.0]
    assert session.state.standing.noise.deviation == pytest.approx(0.70710678)
    assert session.position().phase == "ready"


@pytest.mark.slow
def test_the_same_file_twice_is_noticed(toy: Make):
    session = baseline(toy())
    replace(session, write(0))
    run(session)
    session.discard()
    replace(session, write(0))
    for replicate in (False, True):  # a second draw is nobody's to take
        with pytest.raises(NotAllowedError, match="This very file was experiment 2"):
            session.run_experiment("again", replicate=replicate)
    session.discard()
    replace(session, "# a comment\n" + write(0))
    with pytest.raises(NotAllowedError, match="comments and layout aside, was experiment 2"):
        session.run_experiment("again", replicate=True)


@pytest.mark.slow
def test_the_same_change_is_noticed_through_comments_and_on_another_best(toy: Make):
    session = baseline(toy("rate = 1  # slow\nbonus = 0\nopen('result.txt', 'w').write(str(rate + bonus))\n"))
    run_patched(session, "rate = 1", "rate = 0", "lower rate")
    session.discard()
    session.apply_patch(edit("rate = 1  # slow", "rate = (0)   # none at all"))
    with pytest.raises(NotAllowedError, match=r"This change, .* was experiment 2 \(discard, score 0.000000\): lower rate"):
        session.run_experiment("again")
    session.discard()
    run_patched(session, "bonus = 0", "bonus = 1", "bonus")
    session.keep()
    session.apply_patch(edit("rate = 1  # slow", "rate = 0"))
    with pytest.raises(NotAllowedError, match="experiment 2 .*on another best than now"):
        session.run_experiment("lower rate")
    assert run(session, "lower rate on the new best", replicate=True) == 4


def test_a_change_of_comments_alone_is_not_run(toy: Make):
    session = baseline(toy())
    session.apply_patch("@@ -1,1 +1,2 @@\n+# a comment\n " + WORK)
    for replicate in (False, True):
        with pytest.raises(NotAllowedError, match="comments or layout alone"):
            session.run_experiment("a comment", replicate=replicate)
    session.discard()


@pytest.mark.slow
def test_a_run_that_was_stopped_after_training_began_is_a_result(toy: Make):
    session = baseline(toy())
    replace(session, "import time\ntime.sleep(60)\n")
    number, _ = session.run_experiment("slow")
    wait_for(lambda: session.progress().phase == "training")
    session.stop()
    wait_for(lambda: is_over(session, number))
    session.discard()
    replace(session, "import time\ntime.sleep(60)\n")
    for replicate in (False, True):
        with pytest.raises(NotAllowedError, match=r"This very file was experiment 2 \(crash\)"):
            session.run_experiment("slow, once more", replicate=replicate)


@pytest.mark.slow
def test_a_plateau_is_noticed_and_says_where_to_look(toy: Make):
    session = baseline(toy("rate = 1\nother = 5\nopen('result.txt', 'w').write(str(rate))\n"))
    for i in range(PLATEAU):
        assert "did not help" not in session.position().next
        run_patched(session, "rate = 1", f"rate = 1 - {i + 1}", f"rate {i}")
        session.discard()
    advice = session.position().next
    assert f"{PLATEAU} experiments in a row did not help" in advice
    assert "never touched (other)" in advice and "nearest misses together (2 and 3)" in advice
    run_patched(session, "rate = 1", "rate = 2", "up")
    session.keep()
    assert "did not help" not in session.position().next


def edit(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def run_patched(session: Session, old: str, new: str, description: str) -> int:
    whole = next(line for line in session.read().text.splitlines() if old in line)
    session.apply_patch(edit(whole, whole.replace(old, new)))
    return run(session, description)


@pytest.mark.slow
def test_keep_acts_only_on_what_was_run(toy: Make):
    session = baseline(toy())
    replace(session, write(2))
    run(session)
    session.worktree.path.write_text(write(99))
    with pytest.raises(NotAllowedError, match="changed since experiment 2 ran"):
        session.keep()
    session.discard()
    assert session.read().text == write("1.0")


@pytest.mark.slow
def test_keep_is_refused_when_the_conditions_changed(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = baseline(toy())
    replace(session, write(2))
    run(session)
    monkeypatch.setattr(session.runs, "conditions", lambda: "another")
    with pytest.raises(NotAllowedError, match="replicate=true"):
        session.keep()


@pytest.mark.slow
def test_data_that_changed_since_the_first_run_stops_the_session(toy: Make):
    data = """
[data]
prepare = ["{python}", "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'x').write_text('changes')", "{data}"]
public = ["x"]
"""
    session = toy(toml=TOY + data)
    with pytest.raises(NotAllowedError, match="autoresearch-mcp prepare"):
        session.run_experiment("too early")
    session.data.prepare(session.workspace.root)
    baseline(session)
    (session.data.path / "x").write_text("another")
    replace(session, write(2))
    with pytest.raises(NotAllowedError, match="scores would not compare"):
        session.run_experiment("on other data")
    session.data.prepare(session.workspace.root, force=True)
    run(session, "on the same data again")
    session.keep()


def test_a_changed_read_only_file_is_restored_and_never_used(toy: Make):
    session = toy()
    (session.worktree.root / "score.py").write_text("print(1000)\n")
    _, note = session.run_experiment("baseline")
    assert "score.py had been changed" in note
    wait_for(lambda: not session.state.running)
    assert session.experiment(1).score == 1.0
    assert "1000" not in (session.worktree.root / "score.py").read_text()


def test_stop_ends_a_run_and_all_it_started(toy: Make):
    session = toy("import subprocess, time\nsubprocess.Popen(['sleep', '300'])\nprint('up', flush=True)\ntime.sleep(300)\n")
    number, _ = session.run_experiment("endless")
    wait_for(lambda: "up" in log_of(session, number))
    supervisor = supervisor_of(session, number)
    children = supervisor.children(recursive=True)
    assert len(children) >= 2
    session.stop()
    wait_for(lambda: not session.state.running)
    assert session.experiment(1).failure == "killed"
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def test_a_run_that_ended_before_training_saw_nothing_and_may_be_run_again(toy: Make):
    session = toy("import time\nprint('up', flush=True)\ntime.sleep(300)\n", toml=TOY + WAITS_FOR_DATA)
    session.data.prepare(session.workspace.root)
    for _ in range(2):
        assert session.run_experiment("endless")[0] == 1
        wait_for(lambda: session.progress().phase == "startup")
        session.stop()
        wait_for(lambda: not session.state.running)
    assert len(session.experiment(1).runs) == 2 and session.experiment(1).failed_looks == 0


def test_two_sessions_on_one_workspace_follow_the_same_rules(toy: Make):
    one = toy(UNTIL_TOLD)
    two = open_session(one.workspace.root)
    one.run_experiment("baseline")
    assert two.run_experiment("baseline too")[0] == 1
    let_go(one)
    wait_for(lambda: not two.state.running)
    two.keep()
    with pytest.raises(NotAllowedError):
        one.keep()
    assert one.state.best is not None and one.state.best.number == 1


def test_descriptions_are_one_line_and_needed(toy: Make):
    session = toy()
    with pytest.raises(NotAllowedError, match="description is empty"):
        session.run_experiment("  \n ")
    run(session, "two\nlines\tand a tab")
    assert session.experiment(1).committed.description == "two lines and a tab"


def test_a_bad_patch_leaves_the_file_untouched(toy: Make):
    session = baseline(toy())
    before = session.worktree.path.stat()
    with pytest.raises(PatchError):
        session.apply_patch("@@\n-nothing like this\n+x\n")
    assert session.worktree.path.stat().st_mtime_ns == before.st_mtime_ns


def test_unknown_experiments_and_references(toy: Make):
    session = toy()
    with pytest.raises(NotFoundError, match="no experiment yet"):
        session.experiment()
    run(session)
    with pytest.raises(NotFoundError, match="numbered up to 1"):
        session.experiment(7)
    with pytest.raises(NotFoundError, match=r"score\.py"):
        references.reference_text(session, "/etc/passwd")
    assert references.reference_text(session, "score.py").startswith("print")


def test_keep_and_discard_remember_what_was_learned(toy: Make):
    session = toy()
    run(session)
    assert (session.keep("it  starts\nhere").experiment.verdict or pytest.fail("none")).learned == "it starts here"
