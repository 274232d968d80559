"""What is allowed when. Pure: functions over (state, task, file), without disk, clock or lock.

Every step of the session begins with `require`, every answer carries `position`: legality is told here and nowhere else. The
loop is for one experiment at a time, or for one wave of them (waves.py): a result is judged before the next idea, a failure is
mended or discarded.

What a score is worth is for verdicts.py; while that asks for another run, the server makes it (`due`) and nobody chooses. *A
run that saw data is a result*: what ended without a score after training began, by whatever hand, is not run again, nor is the
same program under other comments; only the rule of `what_to_repeat` runs anything twice. (A baseline that was stopped must be:
nobody but a human chose that file, and nothing takes its place.) The price: a crash by pure chance is mended by a changed
program or not at all, and a program that differs in something without effect still counts as new, which nobody can decide.
"""

from dataclasses import dataclass
from typing import Literal

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import changes, waves
from autoresearch_mcp.loop.verdicts import verdict
from autoresearch_mcp.record.experiments import ExperimentState, RunState, failed_looks
from autoresearch_mcp.record.noise import MOST_RUNS
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import format_score, plain

Step = Literal["apply_patch", "run_experiment", "run_batch", "keep", "discard", "stop_experiment"]
Phase = Literal["baseline", "ready", "edited", "running", "repeating", "scored", "failed", "done"]

PLATEAU = 8  # experiments in a row without a keep, after which the advice is to look elsewhere
FRESH_PLACES = 6  # named in that advice
SCORING_BROKEN = (
    "the scoring command is broken, which is no fault of the file: tell your human, who can see why with `autoresearch-mcp try`; "
    "when it is mended, a new session (serve --session NAME) has it"
)
NO_FAULT = ("lost", "killed", "timeout_startup")  # failures that say nothing of a file whose training never began


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


def due(state: SessionState, task: Task) -> ExperimentState | None:
    """What the server runs again by itself now: an experiment that no verdict can be given on yet, or the best beside it."""
    if state.wave:
        return waves.due(state, task)
    experiment = current(state)
    if state.running or experiment is None:
        return None
    if experiment.undecided:
        return experiment
    return verdict(state, task, experiment).which if experiment.score is not None else None


def current(state: SessionState) -> ExperimentState | None:
    """The experiment that awaits its verdict; None also for a wave, which is no single one."""
    awaiting = state.awaiting
    return awaiting[-1] if awaiting and not awaiting[-1].committed.wave else None


def judged(state: SessionState, task: Task, number: int | None = None) -> ExperimentState | None:
    """The experiment that keep is for: the current one, or of a wave the one of that number, the best where none is given."""
    if not state.wave:
        experiment = current(state)
        return experiment if number is None or (experiment and experiment.number == number) else None
    if number is not None:
        return next((member for member in state.wave if member.number == number), None)
    return next(iter(waves.winners(state, task)), None)


def position(state: SessionState, task: Task, file: File, done: str = "") -> Position:
    """Which steps are allowed now, and which is suggested. `done`: why the session is over, in words; empty while it is not."""
    now = _position(state, task, file)
    if not done or now.phase in ("running", "repeating", "scored"):
        return now
    if current(state) or file.edited:
        return Position("done", ("discard",), f"call discard, to leave the file as the best has it: {done}")
    return Position("done", ("status", "history"), done)


def _position(state: SessionState, task: Task, file: File) -> Position:
    get, read, name = task.get_tool, task.read_tool, task.files.editable
    experiment = current(state)
    if (running := state.running) and running[0][1].of_human:
        step = f"a human examines experiment {running[0][0].number}: call {get} to wait until that is over"
        return Position("running", (get,), step)
    if state.wave:
        return Position(*waves.place(state, task))
    if running and _measures(state, running[0][0]):
        step = f"experiment {running[0][0].number} runs again, which all is measured against: call {get} to wait"
        return Position("running", (get,), step)
    if running:
        step = f"experiment {running[0][0].number} is running: call {get} to wait for its result (stop_experiment ends it early)"
        return Position("running", (get, "stop_experiment"), step)
    if not file.readable:
        return Position("edited", ("discard",), f"{name} is no text file any more: call discard, which sets aside what is there")
    if experiment and (repeated := due(state, task)):
        step = f"call {get} to wait: the server runs experiment {repeated.number} again by itself"
        return Position("repeating", (get, "discard") if state.best else (get,), step, routine=True)
    if experiment and experiment.score is not None:
        decision = verdict(state, task, experiment).decision
        if decision == "keep" and _is_unchanged_baseline(state, experiment, file):
            return Position("scored", ("keep",), "call keep", routine=True)
        return Position("scored", ("keep", "discard") if decision == "keep" else ("discard",), f"call {decision}", routine=True)
    if _owes_baseline(state, file):
        if file.edited:
            return Position("baseline", ("discard",), f"the baseline comes first, and {name} was changed: call discard")
        step = "call run_experiment to run the baseline again: it was stopped, and everything is measured against it"
        return Position("baseline", ("run_experiment",), step)
    if experiment and file.sha256 != experiment.committed.file_sha256:
        return Position("failed", ("run_experiment", "apply_patch", "discard"), "call run_experiment to run your mended change")
    if experiment and experiment.failure == "scoring" and _is_unchanged_baseline(state, experiment, file):
        return Position("failed", ("run_experiment",), SCORING_BROKEN)
    if experiment and experiment.failure == "pruned":
        return Position(
            "failed", ("discard", "apply_patch"), f"call discard: experiment {experiment.number} could not come near the best"
        )
    if experiment:
        step = f"call apply_patch to mend experiment {experiment.number} ({experiment.failure}), or discard"
        if experiment.failure in NO_FAULT and not experiment.failed_looks:
            return Position(
                "failed", ("apply_patch", "discard", "run_experiment"), f"{step}; or run_experiment to run it again as it is"
            )
        return Position("failed", ("apply_patch", "discard"), step)
    if not state.experiments and file.edited:
        return Position("baseline", ("discard",), f"{name} was changed before the baseline ran: call discard")
    if not state.experiments:
        return Position("baseline", ("run_experiment",), "call run_experiment with no change, to run the baseline")
    if state.best is None and not file.edited:
        tried = state.by_file.get(file.sha256, [])
        if all(earlier.failure in NO_FAULT for earlier in tried) and not _known_result(tried):
            return Position("baseline", ("run_experiment", "apply_patch"), "call run_experiment again, to run the baseline")
        if tried and all(earlier.failure == "scoring" for earlier in tried):
            return Position("baseline", ("run_experiment",), SCORING_BROKEN)
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


def require(step: Step, state: SessionState, task: Task, file: File, done: str = "", number: int | None = None) -> None:
    """Raises NotAllowedError, with the reason and the next step, where the step is not allowed now. `number`: what to keep."""
    now = position(state, task, file, done)
    reason = _refusal(step, state, task, file, now, number)
    if reason is not None:
        raise NotAllowedError(f"{reason} Next: {now.next}.")


def _refusal(step: Step, state: SessionState, task: Task, file: File, now: Position, number: int | None) -> str | None:
    """Why the step is not allowed; None where it is."""
    experiment = judged(state, task, number) if step == "keep" else current(state)
    match step:
        case "stop_experiment":
            if not state.running:
                return "No run is on."
            if state.wave and number is None and len(state.running) > 1:
                return "Several runs are on: say which, with experiment."
            running, run = to_stop(state, number)
            if run.of_human:
                return "The run that is on is a human's, to examine what was found."
            return "What all is measured against is running: it is not stopped." if _measures(state, running) else None
        case "apply_patch":
            return None if step in now.allowed else "apply_patch is not allowed now."
        case "run_experiment":  # else what may run is for `what_to_repeat` to say: it depends on the file, and on who insists
            return "The session is done." if now.phase == "done" else "A wave is on." if state.wave else None
        case "run_batch":
            if now.phase == "done":
                return "The session is done."
            if state.best is None:
                return "The baseline comes first."
            if state.running or state.awaiting:
                return "run_batch is not allowed now."
            return f"{task.files.editable} has an edit that never ran: run it, or discard it." if file.edited else None
        case "keep":
            if state.wave and (state.running or not waves.is_over(state, task)):
                return "The wave is not over."
            if number is not None and experiment is None:
                return f"Experiment {number} does not await a verdict."
            if experiment is None or experiment.running:
                return "keep is not allowed now: there is no result to judge."
            if experiment.undecided:
                return f"Experiment {experiment.number} was disturbed and is run again: there is no result to judge yet."
            if experiment.score is None:
                return f"Experiment {experiment.number} gave no score ({experiment.failure}), so it cannot be kept."
            if experiment.committed.wave and experiment.committed.parent != state.head_commit:
                return f"Experiment {experiment.number} was measured against another best: discard it, or combine it."
            if not state.wave and file.sha256 != experiment.committed.file_sha256:
                return f"{task.files.editable} changed since experiment {experiment.number} ran. Call discard, or run it again."
            earned = verdict(state, task, experiment)
            return None if earned.decision == "keep" else f"keep is refused: {earned.reason}."
        case "discard":
            if state.wave:
                return "Experiments of the wave are still running." if state.running else None
            if experiment is None:
                return None if file.edited else "There is nothing to discard."
            if running := state.running:
                return f"Experiment {running[0][0].number} is still running."
            if experiment.score is not None and _is_unchanged_baseline(state, experiment, file):
                return "The baseline has a score and nothing to go back to: it can only be kept."
            return None


def to_stop(state: SessionState, number: int | None = None) -> tuple[ExperimentState, RunState]:
    """The oldest run that is on, before those of what all is measured against; or that of an experiment. Raises NotAllowedError."""
    if number is None:
        return next((one for one in state.running if not _measures(state, one[0])), state.running[0])
    if found := next((one for one in state.running if one[0].number == number), None):
        return found
    raise NotAllowedError(f"No run of experiment {number} is on.")


def what_to_repeat(state: SessionState, task: Task, file: File, replicate: bool) -> ExperimentState | None:
    """The experiment that another run of the file belongs to; None for a new experiment. Raises NotAllowedError.

    This is the whole rule of what runs twice. With `replicate`: an experiment that awaits its verdict, up to MOST_RUNS; the best,
    to measure the noise; and what never saw data. Without: what never saw data and ended by no fault of the file. All runs of one
    experiment go into its mean, and one that failed after it saw data ends the repeating. A program with a result is never run as
    another experiment, for that would be a second draw; the same change on another best than then is another program, and runs
    when `replicate` insists.
    """
    experiment, name, digest = current(state), task.files.editable, file.sha256
    step = position(state, task, file).next
    if repeated := due(state, task):
        return repeated
    if _owes_baseline(state, file):
        if file.edited:
            raise NotAllowedError(f"The baseline comes first. Next: {step}.")
        return experiment
    if experiment and experiment.score is not None:
        if replicate and digest == experiment.committed.file_sha256:
            _require_repeatable(state, experiment, step, task.metric.baseline_runs)
            return experiment
        raise NotAllowedError(f"Experiment {experiment.number} awaits its verdict. Next: {step}.")
    if (
        experiment
        and experiment.failure == "scoring"
        and digest == _sha256_of_base(file)
        and _is_unchanged_baseline(state, experiment, file)
    ):
        return experiment
    if experiment and digest == experiment.committed.file_sha256:
        if experiment.failed_looks:
            raise NotAllowedError(
                f"{name} is as it was when experiment {experiment.number} failed after it saw data ({experiment.failure}): that is "
                f"its result. Next: {step}."
            )
        if replicate or experiment.failure in NO_FAULT:
            return experiment
        raise NotAllowedError(f"{name} is as it was when experiment {experiment.number} failed. Next: {step}.")
    if state.best and digest == state.best.committed.file_sha256:
        if not replicate:
            raise NotAllowedError(
                f"{name} is the best experiment's ({state.best.number}), already scored. Next: call apply_patch; or pass "
                "replicate=true to run it again and measure the noise."
            )
        _require_repeatable(state, state.best, step, task.metric.baseline_runs)
        return state.best
    if not state.experiments and file.edited:
        raise NotAllowedError(f"The baseline comes first. Next: {step}.")
    if state.experiments:
        refuse_what_was_tried(state, task, file, replicate)
    return None


def _require_repeatable(state: SessionState, experiment: ExperimentState, step: str, most: int) -> None:
    """Raises NotAllowedError where one more run of a scored experiment would be one look too many."""
    scored, failed, number = len(experiment.scores), experiment.failed_looks, experiment.number
    if failed:
        raise NotAllowedError(
            f"{failed} of {scored + failed} runs of experiment {number} gave no score after training began, so it is not repeated "
            f"any more. Next: {step}."
        )
    asked = sum(run.started.purpose == "replicate" for run in experiment.runs)
    if experiment is state.best and asked >= MOST_RUNS:
        raise NotAllowedError(f"The best was run {asked} times on request, which is enough. Next: {step}.")
    if experiment is not state.best and scored >= max(MOST_RUNS, most):
        raise NotAllowedError(f"Experiment {number} has had {scored} runs, and a verdict takes no more. Next: {step}.")


def _known_result(experiments: list[ExperimentState]) -> bool:
    """Whether runs of one program have given a result: a score, or a failure after it saw data."""
    runs = [run for experiment in experiments for run in experiment.runs]
    return any(experiment.score is not None for experiment in experiments) or failed_looks(runs) > 0


def refuse_what_was_tried(state: SessionState, task: Task, file: File, replicate: bool = False) -> None:
    """Raises NotAllowedError for a file, or a change, whose result is known."""
    name, digest = task.files.editable, file.sha256
    change = changes.between(name, file.best, file.text)
    if change is None and state.best:
        raise NotAllowedError(
            f"{name} differs from the best experiment's in comments or layout alone, so there is nothing to measure. "
            "Next: change what it does (discard puts the best back)."
        )
    program = changes.program_digest(name, file.text)
    same = {e.number: e for e in (*state.by_file.get(digest, []), *state.by_program.get(program, []))}
    on_another = {e.number: e for e in (state.by_change.get(change.digest, []) if change else [])}
    same |= {number: e for number, e in on_another.items() if e.committed.parent == state.head_commit}
    on_another = {number: e for number, e in on_another.items() if number not in same}
    if same and _known_result(list(same.values())):
        raise NotAllowedError(f"{_told(task, same, digest)} Next: try another change (discard puts the best back).")
    if replicate:
        return
    unmeasured = {number: e for number, e in same.items() if e.failure not in NO_FAULT}
    if unmeasured or (on_another and _known_result(list(on_another.values()))):
        told = _told(task, unmeasured, digest) if unmeasured else _told(task, on_another, digest, ", on another best than now")
        step = "try another change (discard puts the best back), or pass replicate=true to run it all the same"
        raise NotAllowedError(f"{told} Next: {step}.")


def _told(task: Task, experiments: dict[int, ExperimentState], digest: str, base: str = "") -> str:
    """What the first of these experiments was, in words."""
    earlier = experiments[min(experiments)]
    what = "This very file" if digest == earlier.committed.file_sha256 else "This change, comments and layout aside,"
    score = f", {task.metric.name} {format_score(earlier.score)}" if earlier.score is not None else ""
    return f"{what} was experiment {earlier.number} ({earlier.status}{score}{base}): {plain(earlier.committed.description)}."


def _measures(state: SessionState, experiment: ExperimentState) -> bool:
    """Whether others are measured against it: the best, or a baseline that has a score. Who stopped some of its repeats would
    choose what the others have to beat.
    """
    return experiment is state.best or (state.best is None and experiment.score is not None)


def _owes_baseline(state: SessionState, file: File) -> bool:
    """Whether the unchanged file has only ever been stopped: then it says nothing, and no other file takes its place. Or an agent
    would choose by itself what it is measured against, and whose seconds bound those of all others.
    """
    tried = state.by_file.get(_sha256_of_base(file), [])
    ends = [experiment.last for experiment in tried]
    return state.best is None and bool(ends) and all(end is not None and end.stopped for end in ends)


def _is_unchanged_baseline(state: SessionState, experiment: ExperimentState, file: File) -> bool:
    return state.best is None and experiment.committed.file_sha256 == _sha256_of_base(file)


def _sha256_of_base(file: File) -> str:
    return sha256(file.base.encode("utf-8", "surrogatepass"))
