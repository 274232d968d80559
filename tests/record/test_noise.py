"""The rule that decides under noise: its edges one by one, and what it comes to over whole nights."""

import sys
from math import inf
from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.record.noise import (
    ENOUGH,
    MOST,
    MOST_RUNS,
    START,
    Estimate,
    Level,
    Noise,
    decide,
    difference,
    quieter,
    significance,
    succeed,
)
from autoresearch_mcp.record.standing import Standing
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from nights import CHANGES, KINDS, Kind, Night, by_rule, greedily

KNOWN = Noise(squares=30.0, degrees=30)  # a deviation of 1
BEST = Level(10.0, 1 / 8, 8)
NIGHTS = 120
scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=MOST_RUNS)


# --- one decision -----------------------------------------------------------------------------------------------------


def test_a_large_effect_is_kept_after_one_run_and_a_plain_loser_discarded_after_one():
    assert decide([16.0], BEST, KNOWN, START).decision == "keep"
    assert decide([10.2], BEST, KNOWN, START).decision == "discard"
    assert decide([9.0], BEST, KNOWN, START).decision == "discard"


def test_the_same_effect_is_not_enough_where_the_noise_is_hardly_known():
    assert decide([13.8], BEST, KNOWN, START).decision == "keep"
    assert decide([13.8], BEST, Noise(2.0, 2), START).decision == "repeat"


def test_what_may_be_luck_is_repeated_and_in_between_the_best_if_that_is_known_less():
    assert (decide([11.5], BEST, KNOWN, START).decision, decide([11.5], BEST, KNOWN, START).which) == ("repeat", "candidate")
    vague = decide([11.5, 11.6, 11.4], Level(10.0, 1.0), KNOWN, START)
    assert (vague.decision, vague.which) == ("repeat", "best")
    assert 1 <= vague.more <= 2 * MOST_RUNS


def test_nothing_is_judged_before_the_noise_is_known():
    for noise in (Noise(), Noise(1.0, ENOUGH - 1)):
        decision = decide([1e9], BEST, noise, START)
        assert (decision.decision, decision.gain) == ("repeat", None)


def test_without_noise_one_run_decides():
    for score, decision in ((10.0001, "keep"), (10.0, "discard"), (9.9, "discard")):
        assert decide([score], BEST, Noise(0.0, 1), START).decision == decision
    assert decide([10.0001], BEST, Noise(0.0, 1), START, stated=0.001).decision == "discard"


def test_an_end_comes_after_the_most_runs():
    for runs in range(1, MOST_RUNS):
        assert decide([11.35 + run / 1e3 for run in range(runs)], Level(10.0, 1 / 40, 40), KNOWN, START / 1000).decision == "repeat"
    assert decide([11.35] * MOST_RUNS, Level(10.0, 1 / 40, 40), KNOWN, START / 1000).decision == "discard"


def test_the_noise_of_one_level_decides_nothing_at_another():
    """From 50 ms to 1.3 ms: not after one run; then it stands on its own noise, which has to be measured there."""
    slow, noise = Level(-50.0, 1 / 3, 3), Noise(0.5, 2)
    assert decide([-1.3], slow, noise, START).decision == "repeat"
    fast = decide([-1.3, -1.31], slow, noise, START)
    assert fast.decision == "keep"
    level, known = succeed([-1.3, -1.31], slow, noise, fast.gain)
    assert level.mean == pytest.approx(-1.305, abs=0.01) and (known.degrees, known.deviation) == (
        1,
        pytest.approx(0.00707, rel=1e-3),
    )
    assert decide([-3.1], level, known, START).decision == "repeat"  # 2.4 times slower: nothing is equal yet
    level, squares = level.told(-1.30)
    assert decide([-3.1], level, known.more(squares), START).decision == "discard"


@settings(deadline=None)  # the first decision imports scipy
@given(scores, st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 50), st.floats(1e-6, MOST), st.floats(0, 100))
def test_whatever_comes_there_is_a_decision_and_only_what_is_better_is_kept(
    candidate: list[float], best: float, squares: float, degrees: int, level: float, stated: float
):
    decision = decide(candidate, Level(best, 0.2, 5), Noise(squares, degrees), level, stated)
    if decision.decision == "keep":
        assert fmean(candidate) > best + stated
    if len(candidate) == MOST_RUNS:
        assert decision.decision != "repeat"


@given(st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=20), st.floats(0.5, 0.999))
def test_the_level_of_evidence_falls_with_what_was_tried_and_rises_with_what_was_found(
    tried: int, keeps: list[int], confidence: float
):
    keeps = [keep for keep in keeps if keep < tried]
    level = significance(tried, keeps, confidence)
    assert 0 < level <= MOST * (1 - confidence) / 0.1 * 1.0001
    assert significance(tried + 1, keeps, confidence) <= level <= significance(tried, [*keeps, tried], confidence)


def test_a_night_of_any_length_spends_a_bounded_sum():
    assert sum(significance(tried, []) for tried in range(100_000)) < 10


# --- estimates --------------------------------------------------------------------------------------------------------


def test_a_new_best_is_not_its_luckiest_run():
    barely, clearly = Estimate(2.5, 1.0, 20), Estimate(25.0, 1.0, 20)
    assert succeed([12.5], BEST, KNOWN, barely)[0].mean == pytest.approx(10 + 2.5 * (1 - 1.5 / 2.5**2))
    assert succeed([35.0], BEST, KNOWN, clearly)[0].mean == pytest.approx(35, abs=0.1)


def test_a_level_comes_to_the_mean_of_its_runs_and_forgets_what_is_old():
    level = Level(1.0, 1.0)
    for score in (2.0, 3.0, 6.0):
        level, _ = level.told(score)
    assert level.mean == pytest.approx(3.0) and level.spread == pytest.approx(1 / 4)
    fresh, _ = level.told(9.0)
    later, _ = level.later(500).told(9.0)
    assert fresh.mean < later.mean < 9.0


def test_intervals_are_students():
    assert Estimate(1.0, 0.0, inf).interval() == (1.0, 1.0)
    assert Estimate(0.0, 1.0, 2).interval() == pytest.approx((-4.30265, 4.30265), rel=1e-5)
    assert Estimate(0.0, 1.0, inf).interval() == pytest.approx((-1.95996, 1.95996), rel=1e-5)
    assert difference([3.0, 5.0], [0.5, 1.5], Noise(2.0, 2)) == Estimate(3.0, 1.0, 2)
    assert difference([3.0, 5.0], [1.0, 1.0], Noise(2.0, 2)).error == pytest.approx(1.5**0.5), "runs that agree are one"
    assert difference([3.0], [1.0], Noise()).error == inf


def test_what_is_known_of_the_baseline_is_what_its_repeats_say_too():
    known = Standing(greedy=False)
    for score in (1.0, 1.2, 1.1):
        known.ended(1, score, of_best=False)
    known.keep(1)
    known.ended(1, 1.5, of_best=True)
    before = known.best
    for score in (5.0, 5.1):
        known.ended(2, score, of_best=False)
    assert before is not None and before.mean > 1.1 and known.keep(2)
    assert known.baseline is not None and known.baseline.mean == before.mean
    assert known.total is not None and known.total.interval()[0] > 0


# --- whole nights -----------------------------------------------------------------------------------------------------


def nights(name: str, rule: object = by_rule) -> list[Night]:
    kind: Kind = next(kind for kind in KINDS if kind.name == name)
    return [rule(kind, seed) for seed in range(NIGHTS)]  # type: ignore[operator]


def false(made: list[Night]) -> float:
    return fmean(night.false for night in made)


def runs(made: list[Night]) -> float:
    return fmean(night.runs for night in made) / CHANGES


def test_a_night_of_changes_that_change_nothing_claims_nothing():
    made = nights("nothing helps")
    assert false(made) <= 0.5 and runs(made) <= 1.6
    assert abs(fmean(night.claimed - night.true_gain for night in made)) <= 0.5
    assert false(nights("nothing helps", greedily)) > 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "power", "cost"), [("every third helps by 2", 0.65, 2.6), ("every third helps by 4", 0.95, 2.3)])
def test_what_helps_is_found(name: str, power: float, cost: float):
    made = nights(name)
    found = fmean(night.found for night in made)
    assert found / (CHANGES // 3) >= power - 0.02 and runs(made) <= cost
    assert false(made) / (false(made) + found) <= 0.1
    assert fmean(night.claimed for night in made) == pytest.approx(fmean(night.true_gain for night in made), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.tails or kind.drift or kind.growth], ids=lambda kind: kind.name)
def test_noise_of_another_kind_does_not_break_it(kind: Kind):
    made = nights(kind.name)
    assert false(made) <= (1.0 if kind.growth <= 1 else 2.0)  # four times the noise within a night is known a few keeps late
    found = fmean(night.found for night in made)
    assert not kind.effect or false(made) / (false(made) + found) <= 0.1


def test_a_level_that_varies_far_less_has_a_noise_of_its_own():
    """A time of 165 ms that varied by 120 says nothing of one of 0.3 ms: neither how it varies, nor that it is really 30."""
    standing = Standing(greedy=False)
    for gain in (-100.0, -290.0, -60.0, -210.0):
        standing.ended(1, gain, of_best=False)
    standing.keep(1)
    for gain in (-0.15, -0.31, -0.83, -0.22, -0.17, -0.15):
        standing.ended(2, gain, of_best=False)
    standing.keep(2)
    assert standing.best and standing.best.mean == pytest.approx(-0.305, abs=0.01)
    assert standing.noise.deviation and standing.noise.deviation < 1 and standing.peak == standing.best.mean
    total = standing.total
    assert total and total.error > 20, "how good the baseline was is known no better for that"
    standing.ended(3, -1.98, of_best=False)
    assert decide(standing.scores[3], standing.best, standing.noise, 0.01).decision == "discard"


def test_runs_that_differ_little_by_luck_change_no_level():
    random = Random(5)
    changed = sum(quieter([random.gauss() for _ in range(4)], Noise(20.0, 20.0)) for _ in range(2000))
    assert changed <= 8  # one in a thousand, and some luck
