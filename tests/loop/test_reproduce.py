"""An experiment run again: its score comes again, or it is said why not."""

from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.reproduce import run_again
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.views import morning
from conftest import TOY, replace, run

pytestmark = pytest.mark.slow  # each has a session of several runs

Make = Callable[..., Session]
BY_SEED = "import os\nopen('result.txt', 'w').write(str(10 + int(os.environ['AUTORESEARCH_SEED']) / 1000))\n"
MEASURED = TOY.replace('confidence = "single"\n', "")


def quiet(at: Moment) -> None:
    """Tells nobody."""


def again(session: Session, number: int = 1, fresh_seed: bool = False) -> str:
    return morning.reproduced(session, run_again(session, number, fresh_seed, quiet))


def test_the_same_seed_gives_the_same_score(toy: Make):
    session = toy(BY_SEED, MEASURED)
    run(session)
    session.keep()
    scores = list(session.experiment(1).scores)
    assert "score 10.042000 with seed 42" in again(session) and "to the last digit" in again(session)
    assert session.experiment(1).scores == scores and session.position().phase == "ready", "the loop knows nothing of it"


def test_another_seed_is_held_against_the_noise(toy: Make):
    session = toy(BY_SEED, MEASURED)
    run(session)
    session.keep()
    assert "Not reproduced: away by +0." in again(session, fresh_seed=True)  # 10.5 against 10.043, noise 0.001


def test_a_discarded_experiment_can_be_run_again(toy: Make):
    session = toy(BY_SEED, MEASURED)
    run(session)
    session.keep()
    replace(session, BY_SEED.replace("10 +", "5 +"))
    run(session)
    session.discard()
    assert "score 5.042000" in again(session, 2) and session.read().text == BY_SEED


def test_what_never_scored_has_nothing_to_reproduce(toy: Make):
    session = toy("raise SystemExit(1)\n")
    run(session)
    with pytest.raises(NotAllowedError, match="never gave a score"):
        again(session)


def test_other_hardware_and_another_torch_are_not_compared(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(BY_SEED, MEASURED)
    run(session)
    session.keep()
    for state in session.experiment(1).runs:
        assert state.ended is not None
        state.ended = state.ended.model_copy(update={"hardware": "another CPU, 96 cores"})
    assert "Not compared" in (text := again(session)) and "another CPU, 96 cores then" in text
    monkeypatch.setattr("autoresearch_mcp.loop.runs.torch_version", lambda: "9.9")
    assert "torch is another (9.9 now" in again(session)


def test_a_file_that_crashes_now_is_said_to(toy: Make):
    session = toy(BY_SEED + "if os.environ['AUTORESEARCH_SEED'] > '4':\n    pass\n", MEASURED)
    run(session)
    session.keep()
    session.task.run.command[-1:] = ["missing.py"]  # type: ignore[index]
    assert "now ended without a score (error)" in again(session)


def test_where_nothing_was_repeated_nobody_knows_the_noise(toy: Make):
    session = toy(BY_SEED)
    run(session)
    session.keep()
    assert "Not compared, though it is away by +0." in again(session, fresh_seed=True) and "calibrate" in again(session, 1, True)


def test_the_noise_of_another_level_reproduces_nothing(toy: Make):
    """The baseline is a thousand times as noisy as the best: what is nothing there would be much here."""
    noisy = BY_SEED.replace("/ 1000", "% 7 * 1.0")
    session = toy(noisy, MEASURED)
    run(session)
    session.keep()
    replace(session, BY_SEED.replace("10 +", "5000 +"))
    run(session)
    session.keep()
    assert "within the noise" in again(session, 1, fresh_seed=True) or "to the last digit" in again(session, 1, True)
