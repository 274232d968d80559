"""Which learning curves are hopeless: those alone that no earlier run makes look otherwise. And which have diverged."""

from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.record.curves import AGAIN, ENOUGH, FIRST, LAST, MOMENTS, Earlier, diverged, hopeless

Curve = list[float | None]


def learning(start: float = 6.0, end: float = 3.0, late: float = 1.0) -> Curve:
    """From one to the other; the later, the more of it comes at the end."""
    return [start - (start - end) * ((moment + 1) / MOMENTS) ** late for moment in range(MOMENTS)]


def earlier(*curves: Curve, bests: int = 1) -> list[Earlier]:
    return [Earlier("cpu", curve, number < bests) for number, curve in enumerate(curves)]


KNOWN = earlier(learning(), learning(end=3.1), learning(end=3.4), bests=2)
STUCK: Curve = [6.0] * MOMENTS


def ended_at(curve: Curve, known: list[Earlier]) -> int | None:
    """The first moment at which it would be ended."""
    return next((moment for moment in range(1, MOMENTS) if hopeless(curve[:moment], known)), None)


def test_a_run_that_learns_nothing_is_ended_when_too_little_is_left():
    at = ended_at(STUCK, KNOWN)
    assert at is not None and MOMENTS / 2 < at <= LAST, "before that, twice the best's way from there would do"
    found = hopeless(STUCK[:at], KNOWN)
    assert found is not None and found.stands == 6.0 and found.reachable > found.needed > 3.1


def test_one_that_diverges_is_ended_early():
    assert ended_at([6.0, 7.0, 9.0, *[40.0] * (MOMENTS - 3)], KNOWN) == FIRST


def test_what_goes_like_the_others_or_somewhat_worse_goes_on():
    for end in (2.5, 3.0, 3.2, 3.4):
        assert ended_at(learning(end=end), KNOWN) is None


def test_who_was_known_to_catch_up_lets_others_catch_up():
    late = learning(late=6)
    assert ended_at(late, KNOWN) is not None
    assert ended_at(late, [*KNOWN, Earlier("cpu", learning(late=5), best=False)]) is None


def test_another_loss_that_is_learned_as_well_goes_on():
    doubled: Curve = [2 * point for point in learning() if point is not None]
    assert ended_at(doubled, KNOWN) is None
    assert ended_at([2 * 6.0] * MOMENTS, KNOWN) is not None, "unless it is not learned either"
    more: Curve = [6 + point for point in learning() if point is not None]
    assert ended_at(more, KNOWN) is None
    assert ended_at([6 + 6.0] * MOMENTS, KNOWN) is not None


def test_where_up_is_the_good_way_nothing_else_changes():
    accuracy = earlier(learning(0.1, 0.8), learning(0.1, 0.78), learning(0.1, 0.7), bests=2)
    assert ended_at(learning(0.1, 0.79), accuracy) is None
    assert ended_at([0.1] * MOMENTS, accuracy) == ended_at(STUCK, KNOWN)


def test_too_little_is_known_of_too_few_runs_of_none_of_the_best_and_of_runs_that_end_sooner():
    assert ended_at(STUCK, KNOWN[: ENOUGH - 1]) is None
    assert ended_at(STUCK, earlier(learning(), learning(), learning(), bests=0)) is None
    short = [Earlier("cpu", one.curve[:3], one.best) for one in KNOWN]
    assert ended_at(STUCK, short) is None


def test_only_what_was_just_printed_counts():
    seldom = [point if moment % 6 == 0 else None for moment, point in enumerate(learning())]
    assert ended_at(seldom, KNOWN) is None
    assert ended_at([6.0, *[None] * (MOMENTS - 1)], KNOWN) is None
    gaps = [Earlier(one.hardware, [p if k % 3 == 0 else None for k, p in enumerate(one.curve)], one.best) for one in KNOWN]
    assert ended_at(STUCK, gaps) is not None, "of earlier runs it is known what came before and after"


def test_gaps_and_flat_or_empty_curves_decide_nothing():
    assert ended_at([None] * MOMENTS, KNOWN) is None
    assert ended_at(STUCK, earlier(*[[None] * MOMENTS] * 3)) is None
    assert ended_at(STUCK, earlier(*[[4.0] * MOMENTS] * 3)) is None
    assert ended_at([0.0, *STUCK[1:]], KNOWN) is None, "nothing is a share of nothing"
    assert hopeless([], KNOWN) is None and hopeless(STUCK[:FIRST], []) is None


curves = st.lists(st.none() | st.floats(-1e300, 1e300), max_size=MOMENTS)


@given(curves, st.lists(st.builds(Earlier, st.just("cpu"), curves, st.booleans()), max_size=6))
def test_whatever_is_printed_there_is_an_answer(curve: Curve, known: list[Earlier]):
    found = hopeless(curve, known)
    assert found is None or FIRST <= len(curve) <= LAST


gaps, lates, moments = st.floats(0.5, 3.0), st.floats(0.3, 4), st.integers(FIRST, LAST)


@given(gaps, lates, moments)
def test_a_better_curve_is_never_ended_where_a_worse_one_goes_on(gap: float, late: float, moment: int):
    worse, better = learning(end=6 - gap, late=late)[:moment], learning(end=6 - 1.2 * gap, late=late)[:moment]
    assert not (hopeless(better, KNOWN) and not hopeless(worse, KNOWN))


@given(gaps, lates, moments, st.sampled_from([2.0**-9, 0.5, 2.0, 2.0**20, -1.0]))
def test_the_unit_of_what_is_printed_has_no_part_in_it(gap: float, late: float, moment: int, unit: float):
    def changed(curve: Curve) -> Curve:
        return [None if point is None else unit * point for point in curve]

    curve = learning(end=6 - gap, late=late)[:moment]
    known = [Earlier(one.hardware, changed(one.curve), one.best) for one in KNOWN]
    assert bool(hopeless(changed(curve), known)) == bool(hopeless(curve, KNOWN))


DIVERGING: Curve = [6.0, 7.0, 9.5, *[40.0] * (MOMENTS - 3)]


def diverged_at(curve: Curve, known: list[Earlier]) -> int | None:
    """The first moment at which it is told to have diverged."""
    return next((moment for moment in range(1, MOMENTS) if diverged(curve[:moment], known)), None)


def test_a_run_has_diverged_when_it_is_further_back_than_any_came_forward_twice_in_a_row():
    assert diverged_at(DIVERGING, KNOWN) == 4 < FIRST, "9.5 is further than 6 + 2.85, and 40 says it again"
    found = diverged(DIVERGING[:4], KNOWN)
    assert found is not None and (found.stands, found.began) == (40.0, 6.0)
    assert diverged_at([6.0, 8.5] * 10, KNOWN) is None, "not as far"
    assert diverged_at([6.0, 40.0] * 10, KNOWN) is None, "it comes back each time: one bad batch"
    assert diverged_at([6.0, 40.0, None, None, 40.0, *[None] * 15], KNOWN) == 5, "a moment without a number says nothing"


def test_one_of_the_best_is_enough_to_know_the_way_and_without_it_nothing_has_diverged():
    assert diverged_at(DIVERGING, KNOWN[:1]) == 4
    assert diverged_at(DIVERGING, []) is None
    assert diverged_at(DIVERGING, earlier(learning(), bests=0)) is None
    assert diverged_at(DIVERGING, earlier([None] * MOMENTS)) is None
    assert diverged_at(DIVERGING, earlier([3.0] * MOMENTS)) is None, "the best went nowhere: no way is known"


def test_a_best_that_prints_a_flat_curve_has_nobody_ended():
    flat: Curve = [5.0, *[4.999] * 19]
    known = earlier(flat, learning(), bests=1)
    noisy: Curve = [6.0, 6.1, 6.2, *[6.1, 6.2] * 8]
    assert diverged_at(noisy, earlier(flat)) is not None, "nothing else is known"
    assert diverged_at(noisy, known) is None and diverged_at(DIVERGING, known) is not None


def test_a_larger_loss_has_not_diverged():
    for curve in ([20 * (point or 0) for point in learning()], [100 + (point or 0) for point in learning()]):
        assert diverged_at(list(curve), KNOWN) is None
    assert diverged_at([100.0, *[104.0] * 19], KNOWN) is None, "a twentieth of what it began at, whatever the best came"


def test_where_up_is_the_good_way_down_is_divergence():
    accuracy = earlier(learning(0.5, 0.8), learning(0.5, 0.75))
    assert diverged_at([0.5, *[0.1] * 19], accuracy) == 1 + AGAIN
    assert diverged_at([0.5, *[0.9] * 19], accuracy) is None


@given(gaps, lates, moments)
def test_what_learns_at_all_has_not_diverged(gap: float, late: float, moment: int):
    assert diverged(learning(end=6 - gap, late=late)[:moment], KNOWN) is None
