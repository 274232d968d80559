"""Hopeless runs in the loop: what is ended, what never is, and what being ended comes to."""

from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.rules import current
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views import build
from autoresearch_mcp.views.figures import saved_in_words
from conftest import TOY, ended, replace, run, spec_of

Make = Callable[..., Session]
NOISY = TOY.replace('confidence = "single"\n', "").replace("budget_seconds = 20", "budget_seconds = 2")


def learns(to: float, score: float = 1.0) -> str:
    """Prints a loss that comes down from 6 within most of its budget, and leaves a score with some noise."""
    return f"""
import os, time
for step in range(18):
    print("step", step, "loss", 6 - (6 - {to}) * step / 17, flush=True)
    time.sleep(0.1)
open("result.txt", "w").write(str({score} + int(os.environ["AUTORESEARCH_SEED"]) % 7 / 1000))
"""


def with_a_best(toy: Make, toml: str = NOISY) -> Session:
    session = toy(learns(3), toml=toml)
    run(session)
    session.keep()
    return session


@pytest.mark.slow
def test_a_hopeless_run_is_ended_and_is_a_result_and_a_look(toy: Make):
    session = with_a_best(toy)
    assert not spec_of(session, 1).earlier, "neither the baseline nor a repeat is compared with anything"
    replace(session, learns(6, score=9.0))
    number = run(session)
    result = ended(session, number)
    assert (result.outcome, result.failure, result.score) == ("pruned", "pruned", None)
    assert 0 < result.saved < 2 and "which saves" in result.excerpt and len(result.curve) > 5
    assert session.state.tried[number] == 0 and len(session.state.tried) == 2, "it counts as tried"
    assert session.position().suggestion == "discard"
    with pytest.raises(NotAllowedError, match="gave no score"):
        session.keep()
    for insisted in (False, True):
        with pytest.raises(NotAllowedError, match="its result|that is its"):
            session.run_experiment("once more", replicate=insisted)
    assert "pruned" in build.result(session, number).text()
    session.discard()
    assert session.state.counts == {"keep": 1, "pruned": 1} and "1 ended early" in saved_in_words(session.state)
    assert session.results.text().splitlines()[-1].split("\t")[3] == "pruned"
    with pytest.raises(NotAllowedError):
        replace(session, learns(6, score=9.0))
        session.run_experiment("the same again")


@pytest.mark.slow
def test_what_prints_well_gains_nothing_by_it(toy: Make):
    session = with_a_best(toy)
    replace(session, learns(0, score=0.5))
    assert ended(session, run(session)).score is not None
    assert session.position().suggestion == "discard"


@pytest.mark.slow
def test_a_task_may_let_every_run_go_on(toy: Make):
    session = with_a_best(toy, NOISY.replace("[run]", "[run]\nprune = false"))
    replace(session, learns(6, score=9.0))
    number, _ = session.run_experiment("hopeless by its curve")
    assert not spec_of(session, number).earlier
    assert current(session.state) is not None
