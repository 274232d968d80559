"""The morning's judgement, over nights whose truth is known."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from autoresearch_mcp.errors import LedgerError, NotAllowedError, NotFoundError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.loop.verify import judge_night
from autoresearch_mcp.record.noise import Estimate, Noise, difference, unequal
from autoresearch_mcp.views import morning
from autoresearch_mcp.workspace import experiment_ref
from conftest import TOY, Interrupt, open_session, replace, run

Make = Callable[..., Session]
pytestmark = pytest.mark.slow
SCORE = """
import json
val, holdout = open("result.txt").read().split()
print(json.dumps({"score": float(val), "holdout": float(holdout)}))
"""


def program(number: int, val: float, holdout: float) -> str:
    """A file of this level, with a little noise by seed, and shared by both parts."""
    return (
        f"import os, random\nnoise = random.Random(os.environ['AUTORESEARCH_SEED'] + ' {number}').gauss(0, 0.1)\n"
        f"open('result.txt', 'w').write(f'{{{val} + noise}} {{{holdout} + noise}}')\n"
    )


@pytest.fixture
def night(tmp_path: Path, task_folder: Callable[..., Path]) -> Callable[..., Session]:
    """A session that kept a baseline of 10 and 10, then files of these levels."""
    from autoresearch_mcp.create import create

    def make(*levels: tuple[float, float]) -> Session:
        toml = TOY.replace('confidence = "single"\n', "")
        folder = task_folder(toml, work__py=program(0, 10, 10), score__py=SCORE)
        session = open_session(create(tmp_path / "workspace", str(folder)).root)
        for number, level in enumerate(((10, 10), *levels)):
            if number:
                replace(session, program(number, *level))
            run(session, f"level {level}")
            session.keep()
        return session

    return make


def quiet(at: Moment) -> None:
    """Tells nobody."""


def test_a_real_gain_is_said_to_be_real_and_goes_into_the_ledger(night: Callable[..., Session]):
    session = night((15, 15))
    told: list[Moment] = []
    found = judge_night(session, 3, told.append)
    assert found.gain is not None and found.holdout is not None and found.overfit is not None
    low, high = found.gain.interval()
    assert low < 5 < high and low > 4 and found.holdout.interval()[0] > 4
    assert found.overfit.interval()[0] <= 0 <= found.overfit.interval()[1]
    text = morning.verified(session, found)
    assert "The gain is real: on val and on the holdout" in text and "looked at the holdout 1 time," in text
    assert "The night claims" in text
    (recorded,) = session.state.verified
    assert recorded.gain == found.gain.value and recorded.runs == found.runs and len(found.runs) == 6
    assert [at.wanted.experiment for at in told if at.ended] == [1, 2, 2, 1, 1, 2], "in turns"
    assert len(session.state.experiments[1].scores) < 6 and session.state.best_score == pytest.approx(15, abs=0.3)
    again = judge_night(session, 2, quiet)
    assert set(again.runs).isdisjoint(found.runs) and again.looks == 2


def test_what_was_won_on_val_alone_is_called_overfitting(night: Callable[..., Session]):
    found = judge_night(session := night((15, 10)), 3, quiet)
    text = morning.verified(session, found)
    assert "The gain on val is no luck, but the holdout does not show it" in text and "Some of the gain is." in text


def test_a_loss_on_the_holdout_is_no_gain(night: Callable[..., Session]):
    session = night((15, 3))
    text = morning.verified(session, judge_night(session, 3, quiet))
    assert "The gain is not real: there is one on val, and on the holdout a loss." in text


def test_a_lucky_best_is_found_out(night: Callable[..., Session]):
    """Its file does not repeat what it was kept for."""
    session = night()
    lucky = program(1, 10, 10).replace("open(", "noise += 5 * (int(os.environ['AUTORESEARCH_SEED']) < 100)\nopen(", 1)
    replace(session, lucky)
    run(session, "lucky")
    session.keep()
    text = morning.verified(session, judge_night(session, 3, quiet))
    assert "The gain is not shown" in text


def test_before_anything_is_kept_there_is_nothing_to_verify(toy: Make):
    with pytest.raises(NotFoundError, match="Nothing was kept yet"):
        judge_night(toy(), 2, quiet)


def test_a_baseline_alone_claims_nothing(night: Callable[..., Session]):
    session = night()
    assert "claims no gain" in morning.verified(session, judge_night(session, 2, quiet)) and not session.state.verified


def test_nothing_is_concluded_from_a_record_that_does_not_hold(night: Callable[..., Session]):
    session = night((15, 15))
    first, second = (experiment.committed.commit for experiment in session.state.experiments)
    subprocess.run(["git", "update-ref", experiment_ref(2), first], cwd=session.workspace.root, check=True)
    with pytest.raises(LedgerError, match="somebody moved it"):
        judge_night(session, 2, quiet)
    subprocess.run(["git", "update-ref", experiment_ref(2), second], cwd=session.workspace.root, check=True)
    with session.ledger.transaction() as transaction:
        forged = session.state.experiments[1].committed.model_copy(update={"experiment": 3, "file_sha256": "0" * 64})
        transaction.append(forged)
    with pytest.raises(LedgerError, match="work.py of experiment 3 .* is not the file that was recorded"):
        judge_night(session, 2, quiet)


def test_an_interrupted_verification_goes_on_where_it_stood(night: Callable[..., Session]):
    session = night((15, 15))
    interrupt = Interrupt(after=3)
    with pytest.raises(KeyboardInterrupt):
        judge_night(session, 3, interrupt)
    before = session.ledger.state().last_run
    found = judge_night(session, 3, quiet)
    assert len(found.runs) == 6 and interrupt.ended == found.runs[:3]
    assert session.ledger.state().last_run == before + 3


def test_a_crash_of_the_best_is_no_gain(night: Callable[..., Session]):
    session = night()
    replace(session, program(1, 15, 15) + "if int(os.environ['AUTORESEARCH_SEED']) > 900:\n    raise SystemExit(3)\n")
    run(session, "fails in the morning")
    session.keep()
    found = judge_night(session, 3, quiet)
    assert found.gain is None and "gave no score, which is on record" in morning.verified(session, found)
    (recorded,) = session.state.verified
    assert recorded.gain is None and recorded.failed == [ended.run for ended in found.failed] and len(found.failed) == 3
    assert recorded.runs == found.runs


def test_who_asks_for_fewer_runs_gets_rid_of_no_failure(night: Callable[..., Session]):
    session = night()
    replace(session, program(1, 15, 15) + "if os.environ['AUTORESEARCH_SEED'] == '1002':\n    raise SystemExit(3)\n")
    run(session, "fails at the third")
    session.keep()
    interrupt = Interrupt(after=6)
    with pytest.raises(KeyboardInterrupt):
        judge_night(session, 4, interrupt)
    found = judge_night(session, 2, quiet)
    assert found.failed and found.gain is None and interrupt.ended == found.runs
    assert judge_night(session, 2, quiet).gain is not None, "on runs of its own"
    assert [one.gain is None for one in session.state.verified] == [True, False]


def test_noise_that_differs_makes_no_gain_of_nothing():
    """The best is ten times as noisy as the baseline, and no better."""
    one, other = [10.0, 10.1, 9.9], [11.9, 9.0, 10.6]
    assert unequal(other, one).interval()[0] < 0 < unequal(other, one).interval()[1]
    assert difference(other, one, Noise(0.02, 2)).interval()[0] > 0, "as the baseline's noise alone would have it"


def test_on_hardware_that_changed_meanwhile_the_queue_starts_anew(night: Callable[..., Session]):
    session = night((15, 15))
    interrupt = Interrupt(after=2)
    with pytest.raises(KeyboardInterrupt):
        judge_night(session, 2, interrupt)
    for state in (state for experiment in session.state.experiments for state in experiment.runs):
        if state.ended is not None and state.ended.run in interrupt.ended:
            state.ended = state.ended.model_copy(update={"hardware": "another"})
    found = judge_night(session, 2, quiet)
    assert found.gain is not None and len(found.hardware) == 1 and set(found.runs).isdisjoint(interrupt.ended)


def test_what_was_kept_for_being_shorter_is_not_called_luck(night: Callable[..., Session]):
    session = night((15, 15))
    found = judge_night(session, 2, quiet)
    assert not found.simplified
    told = dataclasses.replace(found, simplified=True, gain=Estimate(0.0, 0.0, inf), holdout=None)
    text = morning.verified(session, told)
    assert "claims no gain; it is exactly as good as the baseline" in text and "no score on a sealed holdout" in text


def test_a_run_that_examines_is_not_the_agents_to_stop(night: Callable[..., Session]):
    session, said = night((15, 15)), list[str]()

    def watch(at: Moment) -> None:
        if at.ended is None and not said:
            said.append(session.position().next)
            with pytest.raises(NotAllowedError, match="is a human's"):
                session.stop()

    assert judge_night(session, 2, watch).gain is not None
    assert "a human examines experiment" in said[0]


def test_the_commands(night: Callable[..., Session]):
    session = night((15, 15))

    def said(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", *arguments, "--workspace", str(session.workspace.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "The gain is real" in said("verify", "--runs", "2")
    degrees = open_session(session.workspace.root).state.standing.noise.degrees
    assert "degrees of freedom" in said("calibrate", "--runs", "2")
    assert open_session(session.workspace.root).state.standing.noise.degrees == pytest.approx(degrees + 2)


def test_one_queue_at_a_time(night: Callable[..., Session]):
    session = night((15, 15))

    def another(at: Moment) -> None:
        command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "verify", "--workspace", str(session.workspace.root)]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1 and "queue" in refused.stderr and "work off a queue of runs" in refused.stderr
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_night(session, 2, another)
