"""What is allowed when, and what a score means. Pure: functions over (state, task, file), without disk, clock or lock.

Every step of the session begins with `require`, every answer carries `position`: legality is told here and nowhere else. The loop
is for one experiment at a time: a result is judged before the next idea, a failure is mended or discarded.
"""

from dataclasses import dataclass
from typing import Literal

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import changes
from autoresearch_mcp.record.state import ExperimentState, SessionState
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score, plain

Step = Literal["apply_patch", "run_experiment", "keep", "discard", "stop_experiment"]
Phase = Literal["baseline", "ready", "edited", "running", "scored", "failed"]

PLATEAU = 8  # experiments in a row without a keep, after which the advice is to look elsewhere
FRESH_PLACES = 6  # named in that advice
NO_FAULT = ("lost", "killed")  # failures that say nothing of the file, so that running it again is fair


@dataclass(frozen=True)
class File:
    """The editable file."""

    text: str
    """As it is now."""
    best: str
    """As the best experiment has it, before there is one as the session began."""
    base: str
    """As the session began."""
    readable: bool = True
    """Whether it is text at all: a folder, a link, another encoding is not."""

    @property
    def edited(self) -> bool:
        return not self.readable or self.text != self.best

    @property
    def sha256(self) -> str:
        return sha256(self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Position:
    """Where the loop stands."""

    phase: Phase
    allowed: tuple[str, ...]
    """Tools that make sense now, the suggested one first."""
    next: str
    """The next step in words."""
    routine: bool = False
    """The words say no more than the suggested tool does."""

    @property
    def suggestion(self) -> str:
        return self.allowed[0]


@dataclass(frozen=True)
class Verdict:
    decision: Literal["keep", "discard"]
    reason: str


def verdict(state: SessionState, task: Task, experiment: ExperimentState) -> Verdict:
    """The verdict that a scored experiment earns: keep what is better beyond the noise, or equal within it and shorter."""
    assert experiment.score is not None
    score, metric = format_score(experiment.score), task.metric.name
    improvement, floor = state.improvement(experiment.score), state.noise_floor
    if improvement is None or state.best is None or state.best.score is None:
        return Verdict("keep", f"{metric} {score} is the first score of this session, the baseline")
    best = f"best {format_score(state.best.score)} (experiment {state.best.number})"
    noise = f", noise floor {format_score(floor)}" if floor else ""
    if improvement > floor:
        return Verdict("keep", f"{metric} {score} is better than the {best} by {format_score(improvement)}{noise}")
    saved = state.best.committed.lines - experiment.committed.lines
    if abs(improvement) <= floor and saved > 0:
        return Verdict("keep", f"{metric} {score} equals the {best}{noise}, with {saved} lines fewer: a simplification")
    if abs(improvement) <= floor:
        return Verdict("discard", f"{metric} {score} equals the {best}{noise}, and the file is not shorter")
    return Verdict("discard", f"{metric} {score} is worse than the {best} by {format_score(-improvement)}{noise}")


def current(state: SessionState) -> ExperimentState | None:
    """The experiment that awaits its verdict."""
    awaiting = state.awaiting
    return awaiting[-1] if awaiting else None


def position(state: SessionState, task: Task, file: File) -> Position:
    """Which steps are allowed now, and which is suggested."""
    get, read, name = task.get_tool, task.read_tool, task.files.editable
    experiment = current(state)
    if running := state.running:
        step = f"experiment {running[0][0].number} is running: call {get} to wait for its result (stop_experiment ends it early)"
        return Position("running", (get, "stop_experiment"), step)
    if not file.readable:
        return Position("edited", ("discard",), f"{name} is no text file any more: call discard, which sets aside what is there")
    if experiment and experiment.score is not None:
        decision = verdict(state, task, experiment).decision
        if decision == "keep" and _is_unchanged_baseline(state, experiment, file):
            return Position("scored", ("keep",), "call keep", routine=True)
        return Position("scored", ("keep", "discard") if decision == "keep" else ("discard",), f"call {decision}", routine=True)
    if experiment and file.sha256 != experiment.committed.file_sha256:
        return Position("failed", ("run_experiment", "apply_patch", "discard"), "call run_experiment to run your mended change")
    if experiment:
        step = f"call apply_patch to mend experiment {experiment.number} ({experiment.failure}), or discard"
        if experiment.failure in NO_FAULT:
            return Position(
                "failed", ("apply_patch", "discard", "run_experiment"), f"{step}; or run_experiment to run it again as it is"
            )
        return Position("failed", ("apply_patch", "discard"), step)
    if not state.experiments and file.edited:
        return Position("baseline", ("discard",), f"{name} was changed before the baseline ran: call discard")
    if not state.experiments:
        return Position("baseline", ("run_experiment",), "call run_experiment with no change, to run the baseline")
    if state.best is None and not file.edited:
        if all(tried.score is None and tried.failure in NO_FAULT for tried in state.by_file.get(file.sha256, [])):
            return Position("baseline", ("run_experiment", "apply_patch"), "call run_experiment again, to run the baseline")
        return Position("baseline", ("apply_patch", read), f"{name} gives no score as it is: call apply_patch to mend it")
    if file.edited:
        return Position(
            "edited", ("run_experiment", "apply_patch", "discard"), "call run_experiment to run your change", routine=True
        )
    if advice := widen(state, task, file):
        return Position("ready", ("apply_patch", read), f"{advice}: call apply_patch")
    return Position("ready", ("apply_patch", read), "call apply_patch with the next idea", routine=True)


def widen(state: SessionState, task: Task, file: File) -> str:
    """What to do on a plateau, when the last PLATEAU experiments or more did not help; empty before that."""
    if state.best is None or state.since_best < PLATEAU:
        return ""
    advice = f"{state.since_best} experiments in a row did not help, so leave this neighbourhood: try a larger change"
    fresh = [place for place in changes.places_of(task.files.editable, file.best) if place not in state.places]
    if fresh:
        advice += f", a place never touched ({', '.join(fresh[:FRESH_PLACES])})"
    if len(state.near_misses) > 1:
        first, second = state.near_misses[:2]
        advice += f", the nearest misses together ({first.number} and {second.number})"
    return advice + ", or the same score with less code"


def require(step: Step, state: SessionState, task: Task, file: File) -> None:
    """Raises NotAllowedError, with the reason and the next step, where the step is not allowed now."""
    reason = _refusal(step, state, task, file)
    if reason is not None:
        raise NotAllowedError(f"{reason} Next: {position(state, task, file).next}.")


def _refusal(step: Step, state: SessionState, task: Task, file: File) -> str | None:
    """Why the step is not allowed; None where it is."""
    experiment = current(state)
    match step:
        case "stop_experiment":
            return None if state.running else "No run is on."
        case "apply_patch":
            return None if step in position(state, task, file).allowed else "apply_patch is not allowed now."
        case "run_experiment":  # what may run is for `what_to_repeat` to say: it depends on the file, and on who insists
            return None
        case "keep":
            if experiment is None or experiment.running:
                return "keep is not allowed now: there is no result to judge."
            if experiment.score is None:
                return f"Experiment {experiment.number} gave no score ({experiment.failure}), so it cannot be kept."
            if file.sha256 != experiment.committed.file_sha256:
                return f"{task.files.editable} changed since experiment {experiment.number} ran. Call discard, or run it again."
            earned = verdict(state, task, experiment)
            return None if earned.decision == "keep" else f"keep is refused: {earned.reason}."
        case "discard":
            if experiment is None:
                return None if file.edited else "There is nothing to discard."
            if experiment.running:
                return f"Experiment {experiment.number} is still running."
            if experiment.score is not None and _is_unchanged_baseline(state, experiment, file):
                return "The baseline has a score and nothing to go back to: it can only be kept."
            return None


def what_to_repeat(state: SessionState, task: Task, file: File, replicate: bool) -> ExperimentState | None:
    """The experiment that another run of the file belongs to; None for a new experiment. Raises NotAllowedError."""
    experiment, name, digest = current(state), task.files.editable, file.sha256
    step = position(state, task, file).next
    if experiment and experiment.score is not None:
        if replicate and digest == experiment.committed.file_sha256:
            return experiment
        raise NotAllowedError(f"Experiment {experiment.number} awaits its verdict. Next: {step}.")
    if experiment and digest == experiment.committed.file_sha256:
        if replicate or experiment.failure in NO_FAULT:
            return experiment
        raise NotAllowedError(f"{name} is as it was when experiment {experiment.number} failed. Next: {step}.")
    if state.best and digest == state.best.committed.file_sha256:
        if replicate:
            return state.best
        raise NotAllowedError(
            f"{name} is the best experiment's ({state.best.number}), already scored. Next: call apply_patch; or pass "
            "replicate=true to run it again and measure the noise."
        )
    if not state.experiments and file.edited:
        raise NotAllowedError(f"The baseline comes first. Next: {step}.")
    if state.experiments and not replicate:
        _refuse_what_was_tried(state, task, file)
    return None


def _refuse_what_was_tried(state: SessionState, task: Task, file: File) -> None:
    """Raises NotAllowedError for a file, or a change, whose result is known."""
    name, digest, again = task.files.editable, file.sha256, "or pass replicate=true to run it all the same"
    change = changes.between(name, file.best, file.text)
    same_change = state.by_change.get(change.digest, []) if change else []
    known = [e for e in (*state.by_file.get(digest, []), *same_change) if e.score is not None or e.failure not in NO_FAULT]
    if known:
        earlier = min(known, key=lambda e: e.number)
        committed = earlier.committed
        what = "This very file" if digest == committed.file_sha256 else "This change, comments and layout aside,"
        base = "" if committed.parent == state.head_commit else ", on another best than now"
        score = f", {task.metric.name} {format_score(earlier.score)}" if earlier.score is not None else ""
        raise NotAllowedError(
            f"{what} was experiment {earlier.number} ({earlier.status}{score}{base}): {plain(committed.description)}. "
            f"Next: change it, call discard, {again}."
        )
    if change is None and state.best:
        raise NotAllowedError(
            f"{name} differs from the best experiment's in comments or layout alone, so there is nothing to measure. "
            f"Next: change what it does, call discard, {again}."
        )


def _is_unchanged_baseline(state: SessionState, experiment: ExperimentState, file: File) -> bool:
    return state.best is None and experiment.committed.file_sha256 == sha256(file.base.encode("utf-8", "surrogatepass"))
