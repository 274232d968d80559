"""Waves: several changes to one best at once, judged by the same rule, one kept at most, the rest on record with their reasons."""

from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError, NotFoundError
from autoresearch_mcp.loop import batch, waves
from autoresearch_mcp.loop.batch import Entry
from autoresearch_mcp.loop.session import Session
from conftest import TOY, ended, git, open_session, run, spec_of, supervisor_of, wait_for

Make = Callable[..., Session]
WORK = "a = 1.0\nb = 0.0\nc = 0.0\n\n\nd = 0.0\n\n\ne = 0.0\nopen('result.txt', 'w').write(str(a + b + c + d + e))\n"
SHARED = TOY.replace("budget_seconds = 20", "budget_seconds = 20\ncpus = 1")
"""Its runs take a core each."""


def change(name: str, value: str, before: str = "0.0") -> str:
    return f"<<<<<<< SEARCH\n{name} = {before}\n=======\n{name} = {value}\n>>>>>>> REPLACE\n"


def entry(name: str, value: str, before: str = "0.0") -> Entry:
    return Entry(change(name, value, before), f"{name} is {value}", f"{name} matters")


@pytest.fixture
def session(toy: Make) -> Session:
    """With a baseline of 1.0."""
    made = toy(WORK, SHARED)
    run(made)
    made.keep()
    return made


@pytest.fixture
def waiting(toy: Make) -> Session:
    """With a wave of two, 2 and 3, that runs until a file `go` is there."""
    waits = "import os, time\nb = 0.0\nd = 0.0\nwhile b + d and not os.path.exists('go'):\n    time.sleep(0.02)\n"
    made = toy(waits + "open('result.txt', 'w').write(str(1 + b + d))\n", SHARED)
    run(made)
    made.keep()
    batch.run_batch(made, [entry("b", "2.0"), entry("d", "5.0")])
    return made


def over(session: Session) -> bool:
    session.advance()
    return waves.is_over(session.state, session.task)


def test_a_wave_runs_all_its_changes_and_keeps_the_best_of_them(session: Session):
    numbers = batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0"), entry("e", "-1.0"), entry("a", "0.5", "1.0")])
    assert numbers == [2, 3, 4, 5]
    wait_for(lambda: over(session))
    assert [session.experiment(number).score for number in numbers] == [3.0, 6.0, 0.0, 0.5]
    assert [experiment.number for experiment, _ in waves.ranked(session.state, session.task)] == [3, 2, 5, 4]
    given = {number: session.experiment(number).verdict for number in numbers if isinstance(number, int)}
    assert [number for number, verdict in given.items() if verdict] == [4, 5], "what is decided against is on record at once"
    assert session.position().allowed == ("keep", "discard") and "keeps experiment 3" in session.position().next
    assert "combine=[2]" in session.position().next
    judgement = session.keep("d matters")
    assert judgement.experiment is session.experiment(3) and judgement.others == [session.experiment(2)]
    state = session.state
    assert state.best is session.experiment(3) and state.since_best == 0 and not state.awaiting
    assert {e.number: e.verdict.verdict for e in state.experiments if e.verdict} == {
        1: "keep",
        2: "discard",
        3: "keep",
        4: "discard",
        5: "discard",
    }
    reason = session.experiment(2).verdict.reason  # type: ignore[union-attr]
    assert "better than the best" in reason and "experiment 3 of the same wave was kept" in reason
    assert "d = 5.0" in session.read().text and "b = 0.0" in session.read().text
    assert git(session.workspace.root, "log", "--format=%s", session.state.started.branch).splitlines()[:2] == [
        "d is 5.0",
        "an idea",
    ]
    assert session.position().phase == "ready"


def test_a_death_before_a_waves_refs_costs_none_of_them(session: Session, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.workspace, "set_refs", dies)
        with pytest.raises(KeyboardInterrupt):
            batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0"), entry("e", "-1.0")])
    assert session.workspace.ref("refs/autoresearch/experiments/2") is None
    later = open_session(session.workspace.root)
    wait_for(lambda: over(later))
    for number in (2, 3, 4):
        assert later.workspace.ref(f"refs/autoresearch/experiments/{number}") == later.experiment(number).committed.commit
        assert sum(run.ended is not None and run.ended.score is not None for run in later.experiment(number).runs) == 1


def test_the_changes_of_several_are_merged_and_measured_together(session: Session):
    batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0")])
    wait_for(lambda: over(session))
    session.keep()
    batch.combine(session, [2])
    assert "b = 2.0" in session.read().text and "d = 5.0" in session.read().text
    number = run(session, "2 on top of 3", replicate=True)
    assert ended(session, number).score == 8.0
    session.keep()
    assert session.state.best_score == 8.0


def test_what_overlaps_is_not_merged_and_nothing_is_changed(session: Session):
    batch.run_batch(session, [entry("b", "2.0"), entry("c", "5.0"), Entry(change("b", "3.0"), "other b")])
    wait_for(lambda: over(session))
    session.keep(number=3)
    batch_before = session.read().text
    with pytest.raises(NotAllowedError, match="overlaps"):
        batch.combine(session, [2, 4])
    assert session.read().text == batch_before
    with pytest.raises(NotFoundError, match="no experiment 99"):
        batch.combine(session, [99])


def test_a_bad_entry_is_that_entrys_error(session: Session):
    said = batch.run_batch(
        session,
        [
            entry("nothing", "1.0"),
            entry("b", "2.0"),
            Entry(change("b", "2.0 # the same"), "the same program"),
            Entry(change("d", "("), "no syntax"),
            Entry(change("d", "1.0"), "  "),
            Entry("# nothing", "a comment"),
            entry("d", "4.0"),
        ],
    )
    assert [place for place, what in enumerate(said) if isinstance(what, int)] == [1, 6] and said[1] == 2 and said[6] == 3
    assert "same program" in str(said[2]) and "description is empty" in str(said[4])
    wait_for(lambda: over(session))
    assert session.discard().others
    assert batch.run_batch(session, [entry("b", "2.0")])[0] != 4, "what was tried is refused"
    assert not session.state.wave and len(session.state.experiments) == 3


def test_one_of_the_wave_can_be_chosen_and_only_one_that_earned_it(session: Session):
    batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0"), entry("e", "-1.0")])
    wait_for(lambda: over(session))
    with pytest.raises(NotAllowedError, match="Experiment 4 does not await"):
        session.keep(number=4)
    with pytest.raises(NotAllowedError, match="Experiment 1 does not await"):
        session.keep(number=1)
    assert len(session.state.wave) == 2 and len(session.state.whole_wave) == 3
    session.keep(number=2)
    assert session.state.best_score == 3.0


def test_while_a_wave_is_on_nothing_else_is_tried(waiting: Session):
    session = waiting
    assert session.position().phase == "running" and session.position().allowed[0] == "get_score"
    for step in (lambda: session.apply_patch(change("b", "1.0")), session.keep, session.discard):
        with pytest.raises(NotAllowedError):
            step()
    assert session.run_experiment("joins what is on")[0] == 2
    with pytest.raises(NotAllowedError):
        batch.run_batch(session, [entry("b", "3.0")])

    for number in (2, 3):
        (spec_of(session, number).work / "go").touch()
    wait_for(lambda: over(session))
    session.keep()


def test_a_failed_member_is_discarded_with_its_failure(session: Session):
    batch.run_batch(session, [entry("b", "1 / 0"), entry("d", "5.0")])
    wait_for(lambda: over(session))
    session.keep()
    assert session.experiment(2).failure == "error"
    assert session.experiment(2).verdict.reason == "no score: error"  # type: ignore[union-attr]


def test_nothing_better_is_discarded_in_one_call(session: Session):
    batch.run_batch(session, [entry("b", "-2.0"), entry("d", "-5.0")])
    wait_for(lambda: over(session))
    assert session.position().allowed == ("discard",)
    with pytest.raises(NotAllowedError):
        session.keep()
    session.discard("both are worse")
    assert session.state.since_best == 2 and not session.state.awaiting
    assert "b = 0.0" in session.read().text


def test_a_wave_survives_its_server(session: Session):
    root = session.workspace.root
    batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0")])
    again = open_session(root)
    wait_for(lambda: over(again))
    again.keep()
    assert again.state.best_score == 6.0


def test_a_member_whose_host_dies_runs_again(session: Session):

    slow = Entry(change("b", "2.0\nimport time, os\nopen('up', 'w')\nwhile os.path.exists('up'):\n    time.sleep(0.1)"), "waits")
    batch.run_batch(session, [slow, entry("d", "5.0")])
    supervisor_of(session, 2).kill()
    wait_for(lambda: len(session.experiment(2).runs) > 1 or over(session))
    assert session.experiment(2).runs[0].ended.failure == "lost"  # type: ignore[union-attr]
    wait_for(lambda: session.experiment(3).running is None)
    assert session.stop().number == 2
    wait_for(lambda: over(session))
    session.keep()
    assert session.state.best_score == 6.0


def test_a_wave_needs_a_baseline_and_a_file_without_edits(toy: Make):
    session = toy(WORK, SHARED)
    with pytest.raises(NotAllowedError, match="baseline comes first"):
        batch.run_batch(session, [entry("b", "2.0")])
    run(session)
    session.keep()
    session.apply_patch(change("b", "1.0"))
    with pytest.raises(NotAllowedError, match="an edit that never ran"):
        batch.run_batch(session, [entry("d", "2.0")])
    session.discard()
    with pytest.raises(NotAllowedError, match="1 to 64"):
        batch.run_batch(session, [])


def test_every_member_counts_as_a_look(session: Session):
    batch.run_batch(session, [entry("b", "2.0"), entry("d", "5.0"), entry("e", "1.0")])
    wait_for(lambda: over(session))
    assert sorted(session.state.tried[number] for number in (2, 3, 4)) == [0, 1, 2]


@pytest.mark.parametrize("members", [3, 7])
def test_every_member_is_settled_and_the_branch_stands_at_the_best(session: Session, members: int):
    batch.run_batch(session, [entry("b", f"{number}.0") for number in range(1, members + 1)])
    wait_for(lambda: over(session))
    session.keep()
    state = session.state
    assert state.unsettled == [] and all(experiment.settled for experiment in state.experiments)
    assert git(session.workspace.root, "rev-parse", state.started.branch) == state.head_commit
    session.apply_patch(change("d", "9.0"))
    assert "d = 9.0" in session.read().text
    assert run(session, "the patch is still there") and session.state.experiments[-1].score == members + 10.0


def test_a_batch_stays_within_the_limits(toy: Make):
    session = toy(WORK, SHARED + "\n[limits]\nexperiments = 3\n")
    run(session)
    session.keep()
    said = batch.run_batch(session, [entry("b", "2.0"), entry("d", "3.0"), entry("e", "4.0")])
    assert said[:2] == [2, 3] and "no room" in str(said[2])
    wait_for(lambda: over(session))
    session.keep()
    assert session.position().phase == "done"


def test_merging_what_is_there_already_is_refused(session: Session):
    batch.run_batch(session, [entry("b", "2.0")])
    wait_for(lambda: over(session))
    session.keep()
    with pytest.raises(NotAllowedError, match="in the best already"):
        batch.combine(session, [2])
    assert session.position().phase == "ready"


def test_no_more_runs_are_on_than_there_is_room_for(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoresearch_mcp.executors.local.slots.capacity", lambda run: 1)
    assert session.runs.room == 2
    batch.run_batch(session, [entry("b", f"{number}.0") for number in range(1, 6)])
    assert len(session.state.running) <= 2 and len(session.state.wave) == 5

    def looks() -> bool:
        assert len(session.state.running) <= 2
        return over(session)

    wait_for(looks)
    assert [session.experiment(number).score for number in range(2, 7)] == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_of_several_runs_the_one_to_stop_is_named(waiting: Session):
    session = waiting
    with pytest.raises(NotAllowedError, match="say which"):
        session.stop()
    with pytest.raises(NotAllowedError, match="No run of experiment 9"):
        session.stop(number=9)
    assert session.stop(number=2).number == 2
    (spec_of(session, 3).work / "go").touch()
    wait_for(lambda: over(session))
    session.keep()
    assert session.state.best_score == 6.0 and session.experiment(2).failure == "killed"
