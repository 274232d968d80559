"""What is read of a learning curve while it is printed."""

import time
from typing import cast

import pytest

from autoresearch_mcp.record.curves import MOMENTS, Earlier
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.curve import TAIL, Curve
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.sections import Run

LIMITS = Run(budget_seconds=20, progress=r"step (?P<x>\d+) loss (?P<y>\S+)")
FALLING: list[float | None] = [6 - 3 * (moment + 1) / MOMENTS for moment in range(MOMENTS)]
EARLIER = [Earlier("cpu", FALLING, best=True)] * 3


class Others:
    """What else goes on, as a run's supervisor finds it."""

    def __init__(self, hardware: str = "cpu", disturbed: str = ""):
        self.conditions = {"hardware": hardware, "machine": "", "disturbed": disturbed}


class Reading:
    """A curve and the clock that dates it, which a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, earlier: list[Earlier] | None = None, others: Others | None = None):
        self._now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        self.curve, self.clock = Curve(LIMITS, earlier or []), Clock(LIMITS)
        self.others = cast("Watch", others or Others())

    def at(self, seconds: float, printed: bytes):
        """After so many seconds of training."""
        if self.clock.phase == "queued":
            self.clock.enter("training")
        self._now = 1000.0 + seconds
        return self.curve.look(printed, self.clock, self.others)

    @property
    def points(self) -> list[float | None]:
        return self.curve.row["curve"]


def test_each_moment_has_what_was_printed_last(monkeypatch: pytest.MonkeyPatch):
    reading = Reading(monkeypatch)
    reading.at(0.5, b"step 1 loss 9\n")
    assert reading.points == []
    reading.at(1.1, b"step 1 loss 9\nstep 2 loss 8\nand so on\nstep 3 lo")
    reading.at(1.9, b"step 1 loss 7\n")
    reading.at(2.5, b"step 1 loss 6\n")
    reading.at(3.0, b"step 1 loss 6\nstep 2 loss 5.5")
    assert reading.points == [8.0, 6.0, None], "an unfinished line counts for nothing, and so does what is not new"
    reading.clock.enter("export")
    reading.at(3.2, b"step 9 loss 5.5")
    reading.curve.close(b"step 10 loss 0")
    assert reading.points == [8.0, 6.0, None, 5.5]


def test_what_is_no_finite_number_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    reading = Reading(monkeypatch)
    for number, text in enumerate((b"nan", b"inf", b"1e999", b"words", b"")):
        reading.at(number + 1.0, b"step 1 loss " + text + b"\n")
    assert reading.points == [None] * 5


def test_a_flood_without_end_is_read_in_its_last_part_alone(monkeypatch: pytest.MonkeyPatch):
    reading = Reading(monkeypatch)
    reading.at(1.0, b"step 1 loss 4\n" + b"x" * TAIL + b"\n")
    reading.at(2.0, b"x" * (1 << 20) + b"\nstep 1 loss 4\n")
    assert reading.points == [None, 4.0]


def test_a_pattern_that_a_line_keeps_busy_holds_up_nothing(monkeypatch: pytest.MonkeyPatch):
    slow = Run(budget_seconds=20, progress=r"(?P<x>(a|aa|b)*)+c(?P<y>\d+)(?P=x)d")
    curve, clock, began = Curve(slow, []), Clock(slow), time.perf_counter()
    clock.enter("training")
    monkeypatch.setattr(Clock, "elapsed", 1.5)
    curve.look(b"ab" * 190 + b"\n", clock, cast("Watch", Others()))
    assert curve.row["curve"] == [None] and time.perf_counter() - began < 5


def test_without_a_pattern_or_a_training_there_is_no_curve():
    plain = Curve(Run(budget_seconds=20), EARLIER)
    plain.look(b"step 1 loss 4\n", Clock(LIMITS), cast("Watch", Others()))
    plain.close(b"step 1 loss 4\n")
    never = Curve(LIMITS, EARLIER)
    never.close(b"step 1 loss 4\n")
    assert plain.row == never.row == {"curve": [], "saved": 0.0}


def stuck(reading: Reading) -> float | None:
    """Seconds of training after which a run that learns nothing is ended."""
    return next((s for s in range(1, 20) if reading.at(s + 0.01, b"step %d loss 6\n" % s) is not None), None)


def test_a_hopeless_run_is_ended_with_what_that_saves(monkeypatch: pytest.MonkeyPatch):
    reading = Reading(monkeypatch, EARLIER)
    ended = stuck(reading)
    assert ended is not None and reading.curve.row["saved"] == pytest.approx(20 - ended, abs=0.1)
    failed = reading.at(ended + 1, b"step 99 loss 6\n")
    assert failed and (failed.outcome, failed.failure) == ("pruned", "pruned") and "stood at 6" in failed.reason


@pytest.mark.parametrize("others", [Others("another"), Others(disturbed="others took it"), Others("")])
def test_a_run_on_other_hardware_and_a_disturbed_one_go_on(monkeypatch: pytest.MonkeyPatch, others: Others):
    assert stuck(Reading(monkeypatch, EARLIER, others)) is None


def test_a_run_that_is_compared_with_nothing_goes_on(monkeypatch: pytest.MonkeyPatch):
    assert stuck(Reading(monkeypatch)) is None


def test_a_run_that_diverges_is_ended_early_and_the_step_is_named(monkeypatch: pytest.MonkeyPatch):
    reading = Reading(monkeypatch, EARLIER, Others(disturbed="others took it"))
    assert [reading.at(s, b"step %d loss %d\n" % (s * 7, 6 if s < 3 else 50)) for s in (1, 2, 3)] == [None] * 3
    failed = reading.at(4, b"step 28 loss 51\n")
    assert failed and (failed.outcome, failed.failure) == ("crash", "diverged")
    assert "at step 28" in failed.reason and "stands at 51 and began at 6" in failed.reason
    assert reading.curve.row["saved"] == pytest.approx(16)


@pytest.mark.parametrize("value", [b"nan", b"inf", b"1e999"])
def test_a_loss_that_is_no_number_any_more_ends_any_run(monkeypatch: pytest.MonkeyPatch, value: bytes):
    reading = Reading(monkeypatch)
    assert reading.at(1, b"step 1 loss 6\n") is reading.at(2, b"step 2 loss " + value + b"\n") is None
    failed = reading.at(3, b"step 3 loss " + value + b"\n")
    assert failed and (failed.outcome, failed.failure) == ("crash", "nan") and f"is {value.decode()} at step 3" in failed.reason


def test_one_that_never_was_a_number_and_one_that_is_again_go_on(monkeypatch: pytest.MonkeyPatch):
    for values in ((b"nan",) * 18, (b"6", *(b"nan", b"5") * 8)):
        reading = Reading(monkeypatch)
        assert not any(reading.at(s, b"step %d loss %s\n" % (s, value)) for s, value in enumerate(values, 1))
