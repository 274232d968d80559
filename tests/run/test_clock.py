"""The clock of a run: phases, their limits and what is measured of them."""

import pytest

from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.task import Run


def test_each_phase_has_the_limit_that_the_task_gives_it():
    clock = Clock(Run(budget_seconds=10, grace_seconds=2, startup_seconds=3, export_seconds=4, evaluate_seconds=5))
    limits = {"startup": 3, "training": 12, "export": 4, "evaluation": 5, "done": None}
    assert clock.limit is None and not clock.overdue
    for phase, limit in limits.items():
        clock.enter(phase)  # type: ignore[arg-type]
        assert clock.limit == limit


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
