"""The rules alone, over states made of events: what luck may not do."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import changes, rules
from autoresearch_mcp.loop.verdicts import CROSSINGS, OWN_RUNS, Verdict, verdict
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, SessionStarted, VerdictGiven
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import MOST_RUNS
from autoresearch_mcp.record.standing import WELL_KNOWN
from autoresearch_mcp.record.state import LedgerState, SessionState
from autoresearch_mcp.task import Task, parse_task
from autoresearch_mcp.views.figures import noise_in_words
from conftest import TOY

PHASES = {"queued": 0.1, "startup": 1.0}
TRAINED = {**PHASES, "training": 5.0}


@dataclass
class Night:
    """A session told event by event."""

    stated: float = 0.0
    direction: str = "maximize"
    confidence: Literal["single"] | float = "single"
    ledger: LedgerState = field(default_factory=LedgerState)

    def __post_init__(self) -> None:
        toml = TOY.replace('"maximize"', f'"{self.direction}"\nnoise_floor = {self.stated}')
        toml = toml.replace('confidence = "single"', f"confidence = {json.dumps(self.confidence)}")
        self.task: Task = parse_task(toml)
        self.ledger.apply(
            0.0,
            SessionStarted(
                tag="t", branch="b", base_commit="0", file="work.py", metric="score", direction=self.direction,  # type: ignore[arg-type]
                noise_floor=self.stated, task_sha256="",
                confidence=self.confidence,
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
        hardware: str = "",
        machine: str = "",
        disturbed: str = "",
        **seconds: float,
    ) -> None:
        run = self.ledger.last_run + 1
        self.ledger.apply(0.0, RunStarted(run=run, experiment=experiment.number, seed=0, conditions=""))
        ended = RunEnded(
            run=run, outcome="crash" if score is None else "scored", failure=failure if score is None else None, score=score,
            seconds=seconds, stopped=stopped, hardware=hardware, machine=machine, disturbed=disturbed,
        )  # fmt: skip
        self.ledger.apply(0.0, ended)

    def scored(self, *scores: float, lines: int = 10) -> ExperimentState:
        experiment = self.commit(f"x = {self.ledger.last_experiment + 1}\n", lines)
        for score in scores:
            self.ran(experiment, score, **TRAINED)
        return experiment

    def verdict(self, experiment: ExperimentState) -> Verdict:
        return verdict(self.state, self.task, experiment)

    def judge(self, experiment: ExperimentState) -> str:
        decision = "keep" if self.verdict(experiment).decision == "keep" else "discard"
        self.ledger.apply(0.0, VerdictGiven(experiment=experiment.number, verdict=decision, reason=""))
        self.text = self.best_text
        return decision

    def again(self, replicate: bool = True) -> ExperimentState | None:
        return rules.what_to_repeat(self.state, self.task, self.file, replicate)


# --- equal means equal ------------------------------------------------------------------------------------------------


def test_a_noisy_best_does_not_let_simplifications_drift():
    """Ten, then minus four in two steps: the measured noise grows with the repeats of a lucky best."""
    night = Night()
    first = night.scored(10.0, lines=10)
    night.judge(first)
    night.ran(first, 3.0, **TRAINED)  # deviation 4.9, mean 6.5
    assert night.judge(night.scored(-3.0, lines=9)) == "discard"
    shorter = night.scored(2.0, lines=9)
    assert night.verdict(shorter).decision == "repeat" and night.verdict(shorter).which is shorter
    night.ran(shorter, 6.0, **TRAINED)  # mean 4, within the noise
    assert "worse than the best 6.500000 (experiment 1) by 2.5" in night.verdict(shorter).reason
    assert night.judge(shorter) == "discard"
    fair = night.scored(6.0, 7.0, lines=9)
    assert "a simplification" in night.verdict(fair).reason and night.judge(fair) == "keep"


steps = st.lists(
    st.tuples(st.floats(-20, 20), st.lists(st.floats(-20, 20), max_size=3), st.lists(st.floats(-20, 20), max_size=2)), min_size=1, max_size=15
)  # fmt: skip


@settings(deadline=None)  # the first verdict imports scipy
@given(steps, st.sampled_from([0.0, 0.5]), st.sampled_from(["maximize", "minimize"]), st.sampled_from(["single", 0.9]))
def test_no_sequence_of_simplifications_drifts(
    told: list[tuple[float, list[float], list[float]]], stated: float, direction: str, confidence: Literal["single"] | float
):
    """Whatever scores come and however often the best is repeated, what is kept for being shorter is no worse than any best level
    that there ever was."""
    night, lines = Night(stated, direction, confidence), 1000
    sign = night.state.sign
    for first, more, repeats in told:
        lines -= 1
        experiment = night.scored(first, *more, lines=lines)
        peak, best = night.state.standing.peak, night.state.best_score
        earned = night.verdict(experiment)
        assert experiment.score is not None
        if "a simplification" in earned.reason:
            assert len(experiment.scores) >= OWN_RUNS or night.state.standing.noise.variance == 0
            assert peak is not None and peak - sign * experiment.score <= stated + 1e-9
        elif earned.decision == "keep" and best is not None:
            assert sign * (experiment.score - best) > stated - 1e-9
        if earned.decision == "keep":
            night.judge(experiment)
            after = night.state.standing.peak
            assert peak is None or (after is not None and after >= peak)
        else:
            night.ledger.apply(0.0, VerdictGiven(experiment=experiment.number, verdict="discard", reason=""))
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
    while len(candidate.scores) < MOST_RUNS:
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


# --- a verdict is a decision ------------------------------------------------------------------------------------------


def measured(*scores: float) -> Night:
    """A night whose baseline has these scores, its changes judged with confidence."""
    night = Night(confidence=0.9)
    baseline = night.commit("x = 0\n")
    for score in scores:
        night.ran(baseline, score, **TRAINED)
    if night.verdict(baseline).decision == "keep":
        night.judge(baseline)
    return night


def test_the_baseline_runs_until_the_noise_is_known():
    night = measured(1.0)
    (baseline,) = night.state.experiments
    assert night.verdict(baseline).which is baseline is rules.due(night.state, night.task)
    assert rules.position(night.state, night.task, night.file).allowed == ("get_score",)
    with pytest.raises(NotAllowedError, match="2 more to know the noise"):
        rules.require("keep", night.state, night.task, night.file)
    night.ran(baseline, 1.1, **TRAINED)
    night.ran(baseline, 0.9, **TRAINED)
    assert night.verdict(baseline).decision == "keep" and rules.due(night.state, night.task) is None


def test_a_metric_without_noise_costs_one_run_more_and_nothing_else():
    night = measured(1.0, 1.0)
    assert night.state.best is not None
    better = night.scored(1.001)
    assert night.verdict(better).decision == "keep" and night.judge(better) == "keep"
    assert night.verdict(night.scored(1.0005)).decision == "discard"


def test_a_crash_in_the_baselines_repeats_leaves_it_its_score():
    night = measured(1.0)
    (baseline,) = night.state.experiments
    night.ran(baseline, failure="killed", **TRAINED)
    assert night.verdict(baseline).decision == "keep"


def test_the_server_repeats_candidate_and_best_in_turns_and_the_agent_may_give_up():
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored(12.0)
    assert "may decide" in night.verdict(candidate).reason
    turns: list[int] = []
    while (repeated := rules.due(night.state, night.task)) is not None:
        assert rules.position(night.state, night.task, night.file).allowed == ("get_score", "discard")
        assert night.again(replicate=False) is repeated
        turns.append(repeated.number)
        night.ran(repeated, 12.0 if repeated is candidate else 10.0 + len(turns) % 2, **TRAINED)
    assert set(turns) == {1, 2} and len(turns) < 2 * MOST_RUNS
    rules.require("discard", night.state, night.task, night.file)


def test_nothing_is_discarded_while_the_best_runs_for_it():
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored(12.0, 12.1, 11.9)
    assert night.verdict(candidate).which is night.state.best and night.state.best is not None
    night.ledger.apply(0.0, RunStarted(run=99, experiment=night.state.best.number, seed=0, conditions=""))
    with pytest.raises(NotAllowedError, match="Experiment 1 is still running"):
        rules.require("discard", night.state, night.task, night.file)


def test_a_best_that_fails_is_not_repeated_any_more():
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored(12.0, 12.1, 11.9)
    repeated = rules.due(night.state, night.task)
    assert repeated is night.state.best
    night.ran(repeated, failure="killed", **TRAINED)
    assert rules.due(night.state, night.task) is candidate


def test_extra_repeats_are_looks_and_change_no_bound():
    night = measured(10.0, 11.0, 9.0)
    plain = night.scored(10.0)
    assert night.verdict(plain).decision == "discard"
    for _ in range(MOST_RUNS - 1):
        assert night.again(replicate=True) is plain
        night.ran(plain, 10.0, **TRAINED)
    with pytest.raises(NotAllowedError, match="a verdict takes no more"):
        night.again(replicate=True)


def test_a_disturbed_run_is_set_aside_twice_and_then_counts():
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored()
    for _ in range(2):
        night.ran(candidate, 50.0, disturbed="other processes took a core", **TRAINED)
        assert candidate.score is None and rules.due(night.state, night.task) is candidate
        with pytest.raises(NotAllowedError, match="was disturbed and is run again"):
            rules.require("keep", night.state, night.task, night.file)
    night.ran(candidate, 9.0, disturbed="other processes took a core", **TRAINED)
    assert candidate.scores == [9.0] and night.verdict(candidate).decision == "discard"


def test_scores_are_compared_on_one_class_of_hardware_alone():
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored()
    night.ran(candidate, 50.0, hardware="a faster one", **TRAINED)
    earned = night.verdict(candidate)
    assert (earned.decision, earned.which) == ("repeat", night.state.best) and "a faster one" in earned.reason
    for score in (50.0, 52.0, 48.0):
        assert night.state.best is not None
        night.ran(night.state.best, score, hardware="a faster one", **TRAINED)
    assert night.verdict(candidate).decision == "discard"


def test_the_noise_of_a_class_holds_what_differs_between_its_machines():
    night = measured(10.0, 10.1, 9.9, 10.05, 9.95, 10.0)
    best, before = night.state.best, night.state.standing.noise.deviation
    assert best is not None and before is not None
    for machine in ("another", "a third"):
        candidate = night.scored()
        night.ran(candidate, 15.0, machine=machine, **TRAINED)  # it is faster, and the file no better
        for _ in range(9):
            if (repeated := rules.due(night.state, night.task)) is None:
                break
            night.ran(repeated, 15.05 + night.ledger.last_run % 2 / 10, machine=machine, **TRAINED)
        assert night.verdict(candidate).decision == "discard"
        night.judge(candidate)
        night.ran(best, 10.0, **TRAINED)
    after = night.state.standing.noise.deviation
    assert after is not None and after > 3 * before
    assert "3 machines" in noise_in_words(night.state)
    slow = night.scored()
    night.ran(slow, 9.0, machine="a fourth", **TRAINED)
    assert night.verdict(slow).decision == "discard", "what would not be kept needs no comparison"


def test_where_the_best_runs_is_not_ours_to_say_so_it_is_not_waited_for_without_end():
    night = measured(10.0, 10.1, 9.9, 10.05, 9.95, 10.0)
    candidate = night.scored()
    night.ran(candidate, 15.0, machine="another", **TRAINED)
    runs: list[int] = []
    while (repeated := rules.due(night.state, night.task)) is not None and len(runs) < 99:
        runs.append(repeated.number)
        machine = "another" if repeated is candidate else ""
        night.ran(repeated, (15.0 if repeated is candidate else 10.0) + len(runs) % 2 / 10, machine=machine, **TRAINED)
    assert runs[:CROSSINGS] == [1] * CROSSINGS and len(runs) <= 3 * MOST_RUNS
    assert night.verdict(candidate).decision == "discard" and "calibrate" in night.verdict(candidate).reason


def test_a_best_that_is_on_other_hardware_from_now_on_is_not_waited_for():
    night = measured(10.0, 11.0, 9.0)
    night.judge(night.scored(50.0, 51.0))
    candidate = night.scored(52.0)
    runs = 0
    while (repeated := rules.due(night.state, night.task)) is not None and runs < 99:
        runs += 1
        where = "" if repeated is candidate else "beside 1 other slot"
        night.ran(repeated, (52.0 if repeated is candidate else 50.0) + runs % 3 / 3, hardware=where, **TRAINED)
    assert runs <= 4 * MOST_RUNS and night.verdict(candidate).decision != "repeat"


def test_a_best_that_failed_once_elsewhere_can_be_compared_here():
    night = measured(10.0, 11.0, 9.0)
    best = night.state.best
    assert best is not None
    night.ran(best, failure="error", **TRAINED)
    candidate = night.scored()
    night.ran(candidate, 1000.0, hardware="a new class", **TRAINED)
    assert rules.due(night.state, night.task) is best
    for score in (10.0, 10.5, 9.5):
        night.ran(best, score, hardware="a new class", **TRAINED)
    night.ran(candidate, 1000.5, hardware="a new class", **TRAINED)
    assert night.verdict(candidate).decision == "keep"


def test_what_all_is_measured_against_is_not_the_agents_to_stop():
    night = measured(10.0, 11.0, 9.0)
    best = night.state.best
    assert best is not None
    night.scored(12.0)
    night.ledger.apply(0.0, RunStarted(run=50, experiment=best.number, seed=0, conditions=""))
    with pytest.raises(NotAllowedError, match="is not stopped"):
        rules.require("stop_experiment", night.state, night.task, night.file)
    assert rules.position(night.state, night.task, night.file).allowed == ("get_score",)


def test_what_a_file_that_diverges_scores_breaks_nothing():
    """Whatever rows there are, the fold over them must go on: nobody can take one out of the ledger."""
    for huge in (1e160, 1e200, 1.7e308):
        night = measured(10.0, 11.0, 9.0)
        diverged = night.scored(huge, -huge, huge)
        assert night.verdict(diverged).reason  # no such score is recorded today
        night.ledger.apply(0.0, VerdictGiven(experiment=diverged.number, verdict="discard", reason=""))
        assert (night.state.standing.noise.deviation or 0) < 10, "and its noise is not that of the others"
        assert night.verdict(night.scored(20.0)).decision == "repeat"
    night = Night(confidence=0.9)
    baseline = night.commit("x = 0\n")
    for score in (1e200, 2e200, 1.7e308):
        night.ran(baseline, score, **TRAINED)
    assert night.verdict(baseline).decision == "keep"
    for score in (1e308, -1.7e308):
        night.ran(baseline, score, **TRAINED)
    assert night.state.standing.noise.deviation is not None


def test_who_stops_the_baselines_repeats_does_not_make_the_noise_go_away():
    night = measured(1.0)
    (baseline,) = night.state.experiments
    night.ran(baseline, failure="killed", stopped=True, **TRAINED)
    assert rules.due(night.state, night.task) is baseline
    for score in (1.1, 0.9):
        night.ran(baseline, score, **TRAINED)
    assert night.judge(baseline) == "keep"
    night.judge(night.scored(*[0.5] * 3))  # a file with a seed of its own is no metric without noise
    assert (night.state.standing.noise.deviation or 0) > 0.05
    candidate = night.scored(1.3)
    assert rules.due(night.state, night.task) is not None
    best = night.state.best
    assert best is not None
    night.ran(best, failure="killed", stopped=True, **TRAINED)
    assert best.failed_looks == 0 and night.verdict(candidate).decision == "repeat", "nor may who stops the best's choose its score"


def test_runs_that_agree_while_others_vary_are_one_run():
    night = measured(10.0, 11.0, 9.0)
    noise = night.state.standing.noise
    for _ in range(4):
        night.judge(night.scored(*[9.0] * MOST_RUNS))
    assert night.state.standing.noise == noise, "they tell nothing of the noise"
    lucky = night.scored(*[11.9] * MOST_RUNS)
    gain = night.state.standing.gain(lucky.number)
    assert gain is not None and gain.error > 1.0 and night.verdict(lucky).decision == "discard"
    frozen = night.scored(12.2)
    runs = 0
    while (repeated := rules.due(night.state, night.task)) is not None:
        night.ran(repeated, 12.2 if repeated is frozen else 10.0 + runs % 3 / 2, **TRAINED)
        runs += repeated is frozen
    assert runs < MOST_RUNS - 1, "and are not made for nothing"


def test_a_best_with_a_seed_of_its_own_is_not_repeated_for_nothing():
    night = measured(10.0, 11.0, 9.0)
    night.judge(night.scored(*[60.0] * 3))
    assert night.state.best and night.state.best.number == 2
    candidate = night.scored(61.5)
    repeats: list[int] = []
    while (repeated := rules.due(night.state, night.task)) is not None:
        repeats.append(repeated.number)
        night.ran(repeated, 60.0 if repeated.number == 2 else 61.5 + len(repeats) % 2, **TRAINED)
    assert repeats and set(repeats) == {candidate.number} and len(repeats) < MOST_RUNS


def test_who_asks_for_more_baseline_runs_gets_them_though_two_agree():
    night = Night(confidence=0.9)
    night.task = parse_task(TOY.replace('confidence = "single"', "baseline_runs = 6"))
    baseline = night.commit("x = 0\n")
    for score in (0.88, 0.88, 0.88, 0.9, 0.88):
        night.ran(baseline, score, **TRAINED)
        assert night.verdict(baseline).decision == "repeat"
    night.ran(baseline, 0.86, **TRAINED)
    assert night.judge(baseline) == "keep"
    assert (night.state.standing.noise.deviation or 0) > 0


def test_a_metric_that_seemed_to_have_no_noise_has_it_from_the_first_run_that_says_so():
    night = measured(1.0, 1.0)
    assert night.state.standing.noise.deviation == 0
    night.judge(night.scored(1.2, 1.3))
    assert (night.state.standing.noise.deviation or 0) > 0.05


@pytest.mark.parametrize("of", ["candidate", "best", "baseline"])
def test_a_file_that_ends_before_data_is_not_repeated_for_ever(of: str):
    night = measured(1.0) if of == "baseline" else measured(10.0, 11.0, 9.0)
    experiment = night.state.experiments[0] if of == "baseline" else night.scored(12.0)
    runs = 0
    while (repeated := rules.due(night.state, night.task)) is not None and runs < 50:
        runs += 1
        fails = of == "baseline" or (repeated is experiment) == (of == "candidate")
        night.ran(repeated, None if fails else 12.0, **(PHASES if fails else TRAINED))
    assert runs < 2 * MOST_RUNS + 4
    assert night.verdict(experiment).decision == ("keep" if of == "baseline" else "discard")


def test_what_was_disturbed_and_then_ends_without_a_score_is_not_repeated_for_ever():
    for seconds in (PHASES, TRAINED):
        night = measured(10.0, 11.0, 9.0)
        candidate = night.scored()
        night.ran(candidate, 12.0, disturbed="others", **TRAINED)
        runs = 0
        while rules.due(night.state, night.task) is candidate and runs < 50:
            runs += 1
            night.ran(candidate, disturbed="others", **seconds)
        assert runs <= 3 and candidate.failed_looks and night.state.awaiting == [candidate]


def test_hardware_that_comes_and_goes_is_not_waited_for_without_end():
    for best_fails in (False, True):
        night = measured(10.0, 11.0, 9.0)
        candidate = night.scored()
        night.ran(candidate, 12.0, hardware="beside 1 other slot", **TRAINED)
        runs = 0
        while (repeated := rules.due(night.state, night.task)) is not None and runs < 99:
            runs += 1
            if repeated is candidate:
                night.ran(candidate, 12.0 + runs % 2, hardware="beside 1 other slot", **TRAINED)
            elif best_fails:
                night.ran(repeated, failure="oom", hardware="beside 1 other slot", **TRAINED)
            else:
                night.ran(repeated, 10.0 + runs % 2, **TRAINED)
        assert runs < 4 * MOST_RUNS and night.verdict(candidate).decision == "discard"
        assert "could not be compared" in night.verdict(candidate).reason
    night = measured(10.0, 11.0, 9.0)
    candidate = night.scored()
    night.ran(candidate, 50.0, hardware="beside 1 other slot", **TRAINED)
    night.ran(candidate, 9.0, **TRAINED)
    assert candidate.scores == [9.0] and candidate.score == 9.0, "scores of two classes have no mean"
    assert night.verdict(candidate).decision == "discard"


def test_a_new_level_whose_runs_agree_has_no_noise_of_nothing():
    night = measured(10.0, 10.1, 9.9)
    best = night.scored(*[100.0] * 3)
    assert night.judge(best) == "keep" and night.state.best is best
    for _ in range(3):
        night.ran(best, 100.0, **TRAINED)
    assert night.state.standing.noise.deviation is None, "that file has a seed of its own"
    assert night.verdict(night.scored(100.5)).decision == "repeat"


def test_a_file_that_diverges_does_not_make_everything_look_like_luck():
    night = measured(10.0, 11.0, 9.0)
    before = night.state.standing.noise
    night.judge(night.scored(-1e6, -3e6))
    assert night.state.standing.noise == before
    for number in range(4):
        night.judge(night.scored(9.0, 9.5 + number / 4, 8.0))
    before = night.state.standing.noise
    assert before.degrees >= WELL_KNOWN
    for scores in ((100.0, -100.0), (-40.0, 60.0), (12.0, 90.0)):
        night.judge(night.scored(*scores))
    assert night.state.standing.noise == before, "by then it is known what luck can do"


def test_a_simplification_claims_no_gain():
    night = measured(10.0, 11.0, 9.0)
    for lines in range(9, 4, -1):
        shorter = night.commit("x = 0\n" * lines, lines)
        for score in (10.9, 9.2, 10.2):
            night.ran(shorter, score, **TRAINED)
        earned = night.verdict(shorter)
        assert earned.simpler or earned.decision != "keep"
        decision = "keep" if earned.decision == "keep" else "discard"
        event = VerdictGiven(experiment=shorter.number, verdict=decision, reason="", simpler=earned.simpler)
        night.ledger.apply(0.0, event)
        night.text = night.best_text
    assert len(night.state.kept) > 1
    total = night.state.standing.total
    assert total is not None and total.value == 0.0


def test_a_shorter_file_that_is_better_is_kept_for_that():
    night = measured(10.0, 11.0, 9.0)
    shorter = night.scored(14.0, lines=5)
    while (repeated := rules.due(night.state, night.task)) is not None:
        night.ran(repeated, (14.0 if repeated is shorter else 10.0) + night.ledger.last_run % 3 - 1, **TRAINED)
    assert night.verdict(shorter).decision == "keep" and not night.verdict(shorter).simpler
    night.judge(shorter)
    best = night.state.best_score
    assert best is not None and best > 13


def test_blank_lines_and_comments_make_no_file_longer():
    night = measured(1.0, 1.0)
    wordy, terse = "x = 1  # one\n\n\n# and\ny = 2\n", "x = 1\ny = 2\n"
    assert changes.size("work.py", wordy) == changes.size("work.py", terse) == 2
    assert changes.size("a.md", "# A\n\n\ntext\n") == 2
    with_sizes = night.scored(1.0, lines=1)
    best = night.state.best
    assert best is not None
    best.committed = best.committed.model_copy(update={"size": 2})
    with_sizes.committed = with_sizes.committed.model_copy(update={"size": 2})
    assert night.verdict(with_sizes).decision == "discard"
    with_sizes.committed = with_sizes.committed.model_copy(update={"size": 1})
    assert night.verdict(with_sizes).decision == "keep"


def test_the_total_gain_knows_the_noise_of_both_levels():
    night = measured(50.0, 51.0, 49.0)
    fast = night.scored(1000.0, 1000.01)
    assert night.judge(fast) == "keep"
    for score in (1000.0, 1000.02, 999.99):
        night.ran(fast, score, **TRAINED)
    total = night.state.standing.total
    assert total is not None and total.error == pytest.approx(1 / 3**0.5, rel=0.1) and total.degrees < 4


def test_each_run_of_the_best_may_be_disturbed_twice():
    night = measured(10.0, 11.0, 9.0)
    best = night.state.best
    assert best is not None
    for _ in range(3):
        for _ in range(2):
            night.ran(best, 4.0, disturbed="others", **TRAINED)
        night.ran(best, 10.0, **TRAINED)
    assert best.scores == [10.0, 11.0, 9.0, 10.0, 10.0, 10.0]


def test_runs_that_an_agent_asks_for_beside_what_a_verdict_needs_count_as_tried():
    night = measured(10.0, 11.0, 9.0)
    best = night.state.best
    assert best is not None
    for _ in range(5):
        run = night.ledger.last_run + 1
        night.ledger.apply(0.0, RunStarted(run=run, experiment=best.number, seed=0, conditions="", purpose="replicate"))
        night.ledger.apply(0.0, RunEnded(run=run, outcome="scored", score=10.0, seconds=TRAINED))
    assert night.state.tried[night.scored(9.0).number] == 5


def test_the_same_score_is_no_gain_however_it_is_added_up():
    night = measured(*[0.9889] * 2)
    same = night.scored(sum([0.9889] * 5) / 5)
    assert night.verdict(same).decision == "discard"


def test_what_was_stopped_was_tried_too():
    """Or who watches the curves of unlucky runs and stops them would have only lucky ones counted."""
    night = measured(10.0, 11.0, 9.0)
    for number in range(3):
        stopped = night.scored()
        night.ran(stopped, failure="killed", stopped=True, **TRAINED)
        night.ledger.apply(0.0, VerdictGiven(experiment=stopped.number, verdict="discard", reason=""))
        assert night.state.tried[stopped.number] == number
    assert night.state.tried[night.scored(11.0).number] == 3
