"""The rules alone, over states made of events: what luck may not do."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import changes, rules
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, SessionStarted, VerdictGiven
from autoresearch_mcp.record.state import ExperimentState, LedgerState, SessionState
from autoresearch_mcp.task import Task, parse_task
from conftest import TOY

PHASES = {"queued": 0.1, "startup": 1.0}
TRAINED = {**PHASES, "training": 5.0}


@dataclass
class Night:
    """A session told event by event."""

    stated: float = 0.0
    direction: str = "maximize"
    ledger: LedgerState = field(default_factory=LedgerState)

    def __post_init__(self) -> None:
        toml = TOY.replace('"maximize"', f'"{self.direction}"\nnoise_floor = {self.stated}')
        self.task: Task = parse_task(toml)
        self.ledger.apply(
            0.0,
            SessionStarted(
                tag="t", branch="b", base_commit="0", file="work.py", metric="score", direction=self.direction,  # type: ignore[arg-type]
                noise_floor=self.stated, task_sha256="",
            ),
        )  # fmt: skip
        self.text = "x = 0\n"

    @property
    def state(self) -> SessionState:
        return self.ledger.sessions["t"]

    @property
    def best_text(self) -> str:
        return self._texts[self.state.best.number] if self.state.best else "x = 0\n"

    _texts: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def file(self) -> rules.File:
        return rules.File(self.text, self.best_text, "x = 0\n")

    def commit(self, text: str, lines: int = 10) -> ExperimentState:
        number = self.ledger.last_experiment + 1
        change = changes.between("work.py", self.best_text, text)
        self.text = self._texts[number] = text
        self.ledger.apply(
            0.0,
            ExperimentCommitted(
                experiment=number, session="t", commit=str(number), parent=self.state.head_commit, file_sha256=sha256(text.encode()),
                lines=lines, added=1, removed=1, description="an idea", change_sha256=change.digest if change else None,
                program_sha256=changes.program_digest("work.py", text),
            ),
        )  # fmt: skip
        return self.ledger.experiments[number]

    def ran(
        self,
        experiment: ExperimentState,
        score: float | None = None,
        failure: str = "error",
        *,
        stopped: bool = False,
        **seconds: float,
    ) -> None:
        run = self.ledger.last_run + 1
        self.ledger.apply(0.0, RunStarted(run=run, experiment=experiment.number, seed=0, conditions=""))
        ended = RunEnded(
            run=run, outcome="crash" if score is None else "scored", failure=failure if score is None else None, score=score,
            seconds=seconds, stopped=stopped,
        )  # fmt: skip
        self.ledger.apply(0.0, ended)

    def scored(self, *scores: float, lines: int = 10) -> ExperimentState:
        experiment = self.commit(f"x = {self.ledger.last_experiment + 1}\n", lines)
        for score in scores:
            self.ran(experiment, score, **TRAINED)
        return experiment

    def verdict(self, experiment: ExperimentState) -> rules.Verdict:
        return rules.verdict(self.state, self.task, experiment)

    def judge(self, experiment: ExperimentState) -> str:
        decision = "keep" if self.verdict(experiment).decision == "keep" else "discard"
        self.ledger.apply(0.0, VerdictGiven(experiment=experiment.number, verdict=decision, reason=""))
        self.text = self.best_text
        return decision

    def again(self, replicate: bool = True) -> ExperimentState | None:
        return rules.what_to_repeat(self.state, self.task, self.file, replicate)


# --- equal means equal ------------------------------------------------------------------------------------------------


def test_a_noisy_best_does_not_let_simplifications_drift():
    """Ten, then minus four in two steps: the measured floor grows with the repeats of a lucky best."""
    night = Night()
    first = night.scored(10.0, lines=10)
    night.judge(first)
    night.ran(first, 3.0, **TRAINED)  # floor 9.9, mean 6.5
    shorter = night.scored(-3.0, lines=9)
    assert night.verdict(shorter).decision == "repeat"
    night.ran(shorter, 6.0, **TRAINED)  # mean 1.5, within the floor of 11.4 that it makes itself
    assert "worse than the best estimate of this line, 6.500000, by 5.000000" in night.verdict(shorter).reason
    assert night.judge(shorter) == "discard"
    fair = night.scored(6.0, 7.5, lines=9)
    assert "a simplification" in night.verdict(fair).reason and night.judge(fair) == "keep"


steps = st.lists(
    st.tuples(st.floats(-20, 20), st.lists(st.floats(-20, 20), max_size=3), st.lists(st.floats(-20, 20), max_size=2)), min_size=1, max_size=15
)  # fmt: skip


@given(steps, st.sampled_from([0.0, 0.5]), st.sampled_from(["maximize", "minimize"]))
def test_no_sequence_of_simplifications_drifts(told: list[tuple[float, list[float], list[float]]], stated: float, direction: str):
    """Whatever scores come and however often the best is repeated, what is kept for being shorter is no worse than anything that
    was ever kept, as its runs have it."""
    night, lines = Night(stated, direction), 1000
    sign = night.state.sign
    for first, more, repeats in told:
        lines -= 1
        experiment = night.scored(first, *more, lines=lines)
        ever = [kept.score for kept in night.state.kept if kept.score is not None]
        earned = night.verdict(experiment)
        assert experiment.score is not None
        if "a simplification" in earned.reason:
            assert len(experiment.scores) >= rules.OWN_RUNS
            assert all(sign * (score - experiment.score) <= stated for score in ever)
        elif earned.decision == "keep" and ever:
            best = night.state.best
            assert best and best.score is not None and sign * (experiment.score - best.score) > night.state.noise_floor
        before = night.state.best_estimate
        night.judge(experiment)
        after = night.state.best_estimate
        assert before is None or (after is not None and sign * (after - before) >= 0)
        for score in repeats:
            if night.state.best is not None:
                night.ran(night.state.best, score, **TRAINED)


def test_equal_and_not_shorter_is_no_simplification_however_often_it_ran():
    night = Night()
    night.judge(night.scored(1.0))
    assert night.verdict(night.scored(1.0, 1.0, 1.0)).decision == "discard"


def test_a_candidate_is_not_repeated_until_its_mean_is_lucky():
    night = Night()
    night.judge(night.scored(1.0))
    candidate = night.scored(1.0, lines=9)
    while len(candidate.scores) < rules.MOST_RUNS:
        assert night.again() is candidate
        night.ran(candidate, 0.9, **TRAINED)
    with pytest.raises(NotAllowedError, match="a verdict takes no more"):
        night.again()


# --- an unlucky run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["killed", "error", "timeout", "refused", "oom", "not_causal"])
def test_a_run_that_ended_after_training_began_is_its_result(failure: str):
    night = Night()
    night.judge(night.scored(1.0))
    unlucky = night.commit("x = 7\n")
    night.ran(unlucky, failure=failure, **TRAINED)
    for replicate in (False, True):
        with pytest.raises(NotAllowedError, match="that is its result"):
            night.again(replicate)
    assert rules.position(night.state, night.task, night.file).allowed == ("apply_patch", "discard")
    night.ledger.apply(0.0, VerdictGiven(experiment=unlucky.number, verdict="discard", reason=""))
    for text in ("x = 7\n", "x = 7  # again\n"):
        night.text = text
        with pytest.raises(NotAllowedError, match=f"was experiment {unlucky.number}"):
            night.again()


@pytest.mark.parametrize("seconds", [PHASES, TRAINED])
def test_a_baseline_that_was_stopped_is_run_again_and_nothing_takes_its_place(seconds: dict[str, float]):
    night = Night()
    baseline = night.commit("x = 0\n")
    night.ran(baseline, failure="killed", stopped=True, **seconds)
    assert rules.position(night.state, night.task, night.file).allowed == ("run_experiment",)
    assert night.again(replicate=False) is baseline
    with pytest.raises(NotAllowedError, match="the baseline again"):
        rules.require("apply_patch", night.state, night.task, night.file)
    night.text = "x = 1\n"
    for replicate in (False, True):
        with pytest.raises(NotAllowedError, match="baseline comes first"):
            night.again(replicate)
    assert rules.position(night.state, night.task, night.file).allowed == ("discard",)
    rules.require("discard", night.state, night.task, night.file)
    night.ledger.apply(0.0, VerdictGiven(experiment=baseline.number, verdict="discard", reason=""))
    night.text = "x = 0\n"
    assert night.again(replicate=False) is None, "as a new experiment"
    again = night.commit("x = 0\n")
    night.ran(again, failure="error", **TRAINED)
    assert "apply_patch" in rules.position(night.state, night.task, night.file).allowed, "what fails by itself is mended"


def test_a_loss_is_free_once_for_a_program_and_not_for_an_experiment():
    night = Night()
    night.judge(night.scored(1.0))
    lost = night.commit("x = 7\n")
    night.ran(lost, failure="lost", **TRAINED)
    assert night.again(replicate=False) is lost
    night.ledger.apply(0.0, VerdictGiven(experiment=lost.number, verdict="discard", reason=""))
    assert night.again(replicate=False) is None  # as a new experiment
    other = night.commit("x = 7\n")
    night.ran(other, failure="lost")  # nobody knows how far it came
    night.ledger.apply(0.0, VerdictGiven(experiment=other.number, verdict="discard", reason=""))
    with pytest.raises(NotAllowedError, match="This very file"):
        night.again()


@pytest.mark.parametrize(("failure", "insists"), [("killed", False), ("timeout_startup", False), ("lost", False), ("error", True)])
def test_a_run_that_never_saw_data_may_run_again(failure: str, insists: bool):
    night = Night()
    night.judge(night.scored(1.0))
    early = night.commit("x = 7\n")
    for _ in range(3):
        night.ran(early, failure=failure, **PHASES)
    assert night.again(replicate=True) is early
    if insists:
        with pytest.raises(NotAllowedError, match="as it was when"):
            night.again(replicate=False)
    else:
        assert night.again(replicate=False) is early


def test_not_causal_is_final_also_before_training():
    night = Night()
    night.judge(night.scored(1.0))
    early = night.commit("x = 7\n")
    night.ran(early, failure="not_causal", **PHASES)
    with pytest.raises(NotAllowedError, match="that is its result"):
        night.again()


def test_a_mean_of_lucky_runs_is_not_kept():
    night = Night()
    night.judge(night.scored(1.0))
    better = night.scored(5.0)
    assert night.verdict(better).decision == "keep"
    night.ran(better, failure="killed", **TRAINED)
    assert night.verdict(better).decision == "discard" and "1 of its 2 runs" in night.verdict(better).reason
    with pytest.raises(NotAllowedError, match="not repeated any more"):
        night.again()


def test_a_failed_repeat_of_the_best_ends_its_repeating_and_leaves_its_mean():
    night = Night()
    best = night.scored(1.0)
    night.judge(best)
    assert night.again() is best
    night.ran(best, failure="killed", **TRAINED)
    assert (best.score, best.status) == (1.0, "keep")
    with pytest.raises(NotAllowedError, match="1 of 2 runs of experiment 1 gave no score"):
        night.again()
