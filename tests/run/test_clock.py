"""The clock of a run: phases, their limits and what is measured of them."""

import pytest

from autoresearch_mcp.run.clock import Clock, limits
from autoresearch_mcp.sections import Run


def test_each_phase_has_the_limit_that_the_task_gives_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    clock = Clock(Run(budget_seconds=10, grace_seconds=2, startup_seconds=3, export_seconds=4, evaluate_seconds=5))
    expected = {"startup": 13, "check": None, "training": 12, "export": 4, "evaluation": 5, "done": None}
    assert clock.limit is None and not clock.overdue
    for phase, limit in expected.items():
        clock.enter(phase)  # type: ignore[arg-type]
        assert clock.limit == limit


def test_start_up_is_free_up_to_its_allowance_and_charged_beyond(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(Run(budget_seconds=10, grace_seconds=2, startup_seconds=3))
    clock.enter("startup")
    now = 102.0
    clock.enter("check")  # ours: not counted while it is as quick as that
    now = 152.0
    clock.enter("startup")
    assert clock.budget == 10 and clock.limit == 11
    now = 153.0
    assert clock.budget == 10
    now = 157.0
    assert clock.budget == 6 and not clock.overdue
    clock.enter("training")
    assert clock.budget == 6 and clock.limit == 8
    assert clock.seconds == {"queued": 0.0, "startup": 7.0, "check": 50.0}


def test_a_check_that_what_was_declared_makes_slow_counts_as_start_up(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(Run(budget_seconds=10, startup_seconds=3, check_seconds=20))
    clock.enter("startup")
    now = 101.0
    clock.enter("check")
    now = 126.0
    clock.enter("startup")
    assert clock.limit == 7 and clock.budget == 7
    now = 133.5
    assert clock.overdue
    assert limits(clock.limits, [{"startup": 1.0, "check": 2.0}]).check_seconds == 16.0


def test_start_up_ends_when_it_has_eaten_the_budget(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(Run(budget_seconds=10, startup_seconds=3))
    clock.enter("startup")
    now = 113.1
    assert clock.budget == 0 and clock.overdue


def test_the_baseline_bounds_what_is_free_and_how_long_is_scored():
    run = Run(startup_seconds=120, evaluate_seconds=300)
    assert limits(run, []) == run
    bounded = limits(run, [{"startup": 4.0, "evaluation": 2.0}, {"startup": 5.0, "evaluation": 1.0}])
    assert (bounded.startup_seconds, bounded.evaluate_seconds) == (25.0, 18.0)
    assert limits(run, [{"startup": 100.0, "evaluation": 100.0}]) == run, "never more than the task allows"
    assert limits(run, [{"training": 5.0}]) == run


def test_seconds_are_measured_by_phase_and_a_phase_may_come_twice(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(Run(budget_seconds=10, grace_seconds=0.5))
    now = 101.0
    clock.enter("training")
    now = 111.0
    assert clock.elapsed == 10.0 and not clock.overdue
    now = 111.6
    assert clock.overdue
    clock.enter("evaluation")
    now = 112.0
    clock.enter("training")
    now = 113.0
    clock.enter("done")
    assert clock.seconds == pytest.approx({"queued": 1.0, "training": 11.6, "evaluation": 0.4})


def test_where_nothing_is_learned_scoring_has_the_time_that_the_task_says():
    run = Run(startup_seconds=120, evaluate_seconds=300)
    assert limits(run, [{"startup": 1.0, "evaluation": 1.0}], learns=False).evaluate_seconds == 300
