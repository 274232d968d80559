"""The rules of the loop: which step is allowed now, what keep and discard do, and what a death may leave half done.

One Session is one line of research in a workspace. Every step takes the session's lock, first finishes what an earlier step
left half done, and checks the ledger inside the transaction that it writes in; so any number of servers may share a session.
All methods block; the app calls them in worker threads.
"""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import NotAllowedError, NotFoundError, WorkspaceError
from autoresearch_mcp.executors import local as executor
from autoresearch_mcp.files import locked, read_regular, sha256, write_atomic
from autoresearch_mcp.loop import changes, patches
from autoresearch_mcp.loop.diffs import Diff, unified_diff
from autoresearch_mcp.record.ledger import (
    ExperimentCommitted,
    ExperimentState,
    Ledger,
    RunEnded,
    RunStarted,
    SessionStarted,
    SessionState,
    Settled,
    VerdictGiven,
    format_score,
    write_results,
)
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import TASK_FILE, Task
from autoresearch_mcp.text import plain, split_lines
from autoresearch_mcp.workspace import PROGRAM, Workspace

SEED = 42  # of the first run of every experiment, so that experiments differ by their file alone; repeats count up
MAX_FILE_BYTES = patches.MAX_BYTES
OF_EXPERIMENTS = ("log:<experiment>", "diff:<experiment>", "diff:best")  # what else read_reference can show
PLATEAU = 8  # experiments in a row without a keep, after which the server suggests to look elsewhere
FRESH_PLACES = 6  # named in that suggestion


@dataclass(frozen=True)
class FileText:
    text: str
    revision: str


@dataclass(frozen=True)
class Position:
    """Where the loop stands."""

    phase: str
    """baseline, ready, edited, running, scored or failed"""
    allowed: list[str]
    """Tools that make sense now, the next step first."""
    next: str
    """The next step in words."""


def open_ledger(workspace: Workspace) -> Ledger:
    return Ledger(workspace.state_dir / "ledger.db")


def default_tag(ledger: Ledger) -> str:
    """The latest session of the workspace; for the first one, today's date, like nov23."""
    sessions = ledger.state().sessions
    return max(sessions, key=lambda tag: sessions[tag].at) if sessions else datetime.now().strftime("%b%d").lower()


class Session:
    def __init__(self, workspace: Workspace, ledger: Ledger, tag: str | None = None):
        """Opens the session `tag`, starting it where it is new. Raises WorkspaceError or TaskError."""
        self.workspace, self.ledger = workspace, ledger
        self.tag = tag or default_tag(ledger)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", self.tag) or self.tag.endswith((".lock", ".")) or ".." in self.tag:
            raise WorkspaceError(f"{self.tag!r} is no session name. Use letters, digits, '-', '_' and '.', at most 50, like nov23.")
        with self._locked():
            if self.tag not in ledger.state().sessions:
                self._start()
            started = self.state.started
            self.task: Task = workspace.task_at(started.base_commit)
            self._ensure_branch()
            self.worktree = workspace.worktree(self.tag, started.branch)
            self._settle()
            self._restore_refs()
            self._mark_lost()

    @property
    def state(self) -> SessionState:
        return self.ledger.state().sessions[self.tag]

    @property
    def path(self) -> Path:
        """The session's copy of the editable file."""
        return self.worktree / self.task.files.editable

    @property
    def results_path(self) -> Path:
        return self.workspace.root / "results.tsv"

    @cached_property
    def pinned(self) -> dict[str, bytes]:
        """The read-only files as they were when the session started."""
        return {path: self.workspace.blob(self.state.started.base_commit, path) for path in self.task.files.read_only}

    @cached_property
    def data(self) -> DataFolder:
        return DataFolder(self.task, self.pinned)

    def conditions(self) -> str:
        """Hash of everything but the editable file that a result depends on: task, read-only files, data."""
        parts = [self.state.started.task_sha256, self.data.fingerprint()]
        parts += [f"{path} {sha256(content)}" for path, content in sorted(self.pinned.items())]
        return sha256("\n".join(parts).encode())

    # --- reading ---

    def read(self) -> FileText:
        """The editable file as it is now. Raises WorkspaceError where it is no UTF-8 text file."""
        try:
            content = read_regular(self.path, MAX_FILE_BYTES)
            return FileText(content.decode("utf-8"), sha256(content)[:12])
        except FileNotFoundError:
            with self._locked():
                self._restore_file()
            return self.read()
        except OSError as error:
            raise WorkspaceError(f"{self.path} cannot be read: {error}. Put a regular file of at most 1 MiB there.") from error
        except UnicodeDecodeError as error:
            raise WorkspaceError(f"{self.path} is not UTF-8 text (byte {error.start}). Restore it with discard.") from error

    def text_at(self, commit: str) -> str:
        return self.workspace.blob(commit, self.task.files.editable).decode("utf-8", errors="replace")

    def references(self) -> dict[str, str]:
        """Names of what read_reference can show, with a word on each."""
        known = {path: "read-only file of the task" for path in self.task.files.read_only}
        return {PROGRAM: "the human's instructions", TASK_FILE: "the task"} | known

    def reference(self, name: str) -> str:
        if name not in self.references():
            raise NotFoundError(
                f"There is no reference {name!r}. Choose one of: {', '.join([*self.references(), *OF_EXPERIMENTS])}."
            )
        return self.workspace.blob(self.state.started.base_commit, name).decode("utf-8", errors="replace")

    def experiment(self, number: int | None = None) -> ExperimentState:
        """An experiment of this session, the latest one for None."""
        experiments = self.state.experiments
        if not experiments:
            raise NotFoundError("There is no experiment yet. Call run_experiment to run the baseline.")
        if number is None:
            return experiments[-1]
        for experiment in experiments:
            if experiment.number == number:
                return experiment
        raise NotFoundError(f"There is no experiment {number} in this session; they are numbered up to {experiments[-1].number}.")

    def spec(self, run: int) -> RunSpec | None:
        path = self.workspace.runs_dir / str(run) / "spec.json"
        return RunSpec.model_validate_json(path.read_bytes()) if path.exists() else None

    def diff(self, experiment: ExperimentState) -> str:
        """What the experiment changed against the best of its time."""
        return self._diff(experiment.committed.parent, experiment.committed.commit)

    def diff_of_best(self) -> str:
        """What all kept experiments together changed against the baseline; empty before there are two."""
        state = self.state
        return self._diff(state.baseline.committed.commit, state.head_commit) if state.baseline else ""

    def _diff(self, old: str, new: str) -> str:
        return unified_diff(self.text_at(old), self.text_at(new), self.task.files.editable).text

    def position(self) -> Position:
        """Which steps are allowed now."""
        task, state = self.task, self.state
        get, read = task.get_tool, task.read_tool
        current = state.current
        if state.running:
            number = state.running[0].number
            step = f"experiment {number} is running: call {get} to wait for its result (stop_experiment ends it early)"
            return Position("running", [get, "stop_experiment"], step)
        if current and current.score is not None:
            verdict, _ = self.suggest(current)
            other = [] if verdict == "keep" and self._is_unchanged_baseline(current) else ["discard" if verdict == "keep" else None]
            allowed = [verdict, *(name for name in other if name)]
            return Position("scored", allowed, f"call {verdict}")
        if current and sha256(self._current_text().encode()) != current.committed.file_sha256:
            return Position("failed", ["run_experiment", "apply_patch", "discard"], "call run_experiment to run your mended change")
        if current:
            step = f"call apply_patch to mend experiment {current.number} ({self.failure(current)}), or discard"
            if self._may_repeat(current):
                step = f"{step}; or run_experiment to run it again as it is"
                return Position("failed", ["apply_patch", "discard", "run_experiment"], step)
            return Position("failed", ["apply_patch", "discard"], step)
        edited = self._edited()
        if not state.experiments:
            if edited:
                return Position("baseline", ["discard"], f"{task.files.editable} was changed before the baseline ran: call discard")
            return Position("baseline", ["run_experiment"], "call run_experiment with no change, to run the baseline")
        if edited:
            return Position("edited", ["run_experiment", "apply_patch", "discard"], "call run_experiment to run your change")
        advice = self.widen()
        step = f"{advice}: call apply_patch" if advice else "call apply_patch with the next idea"
        return Position("ready", ["apply_patch", read], step)

    def widen(self) -> str:
        """What to do on a plateau, when the last PLATEAU experiments or more did not help; empty before that."""
        state, file = self.state, self.task.files.editable
        fruitless = state.since_best
        if state.best is None or len(fruitless) < PLATEAU:
            return ""
        advice = f"{len(fruitless)} experiments in a row did not help, so leave this neighbourhood: try a larger change"
        touched = {place for e in state.experiments for place in e.committed.places}
        fresh = [place for place in changes.places_of(file, self.text_at(state.head_commit)) if place not in touched]
        if fresh:
            advice += f", a place never touched ({', '.join(fresh[:FRESH_PLACES])})"
        scored = [e for e in fruitless if e.score is not None]
        scored.sort(key=lambda e: -(state.improvement(e.score or 0.0) or 0.0))
        if len(scored) > 1:
            advice += f", the nearest misses together ({scored[0].number} and {scored[1].number})"
        return advice + ", or the same score with less code"

    def suggest(self, experiment: ExperimentState) -> tuple[str, str]:
        """(keep or discard, why) for a scored experiment: keep what is better beyond the noise, or equal and shorter."""
        state = self.state
        assert experiment.score is not None
        score, metric = format_score(experiment.score), self.task.metric.name
        improvement, floor = state.improvement(experiment.score), state.noise_floor
        if improvement is None or state.best is None or state.best.score is None:
            return "keep", f"{metric} {score} is the first score of this session, the baseline"
        best = f"best {format_score(state.best.score)} (experiment {state.best.number})"
        noise = f", noise floor {format_score(floor)}" if floor else ""
        if improvement > floor:
            return "keep", f"{metric} {score} is better than the {best} by {format_score(improvement)}{noise}"
        saved = state.best.committed.lines - experiment.committed.lines
        if abs(improvement) <= floor and saved > 0:
            return "keep", f"{metric} {score} equals the {best}{noise}, with {saved} lines fewer: a simplification"
        if abs(improvement) <= floor:
            return "discard", f"{metric} {score} equals the {best}{noise}, and the file is not shorter"
        return "discard", f"{metric} {score} is worse than the {best} by {format_score(-improvement)}{noise}"

    def failure(self, experiment: ExperimentState) -> str:
        last = experiment.last
        return (last.failure or last.outcome) if last else "pending"

    # --- steps ---

    def apply_patch(self, patch: str) -> tuple[Diff, FileText]:
        """Changes the editable file; returns the diff of the change and the new text. Raises PatchError, NotAllowedError."""
        with self._locked():
            self._settle()
            position = self.position()
            if "apply_patch" not in position.allowed:
                raise NotAllowedError(f"apply_patch is not allowed now. Next: {position.next}.")
            before = self.read().text
            after = patches.apply_patch(patch, self.task.files.editable, before, self.worktree.as_posix())
            self._write_file(after.encode("utf-8"))
            return unified_diff(before, after, self.task.files.editable), self.read()

    def run_experiment(self, description: str, hypothesis: str | None = None, replicate: bool = False) -> tuple[int, str]:
        """Commits the file and starts a run, or joins the run that is on. Returns the experiment's number and a note."""
        description = " ".join(description.split())[:500]
        with self._locked():
            self._settle()
            self._mark_lost()
            state = self.state
            if state.running:
                return state.running[0].number, "a run is on already; this is its state"
            if not description:
                raise NotAllowedError("description is empty. Say in a few words what this experiment tries, then call again.")
            if missing := self.data.missing():
                if self.data.in_preparation:
                    raise NotAllowedError(
                        "The data is being prepared right now. Call status in a minute, then run_experiment again."
                    )
                raise NotAllowedError(
                    f"The data is not prepared ({', '.join(missing)} missing in {self.data.path}). "
                    f"A human must run: autoresearch-mcp prepare --workspace {self.workspace.root}"
                )
            note = self._restore_read_only()
            text = self.read()
            content = text.text.encode("utf-8")
            patches.check_syntax(self.task.files.editable, text.text)
            again = self._what_to_repeat(content, replicate)
            conditions = self._pinned_conditions()
            if again is None:
                number, run = self._commit_experiment(content, description, hypothesis, conditions)
            else:
                number, content = again.number, self.text_at(again.committed.commit).encode("utf-8")
                with self.ledger.transaction() as transaction:
                    run = RunStarted(
                        run=transaction.next_run(), experiment=number, seed=SEED + len(again.runs), conditions=conditions
                    )
                    transaction.append(run)
            self._launch(run, content)
            return number, note

    def keep(self, learned: str | None = None) -> ExperimentState:
        """Makes the current experiment the best. Raises NotAllowedError unless the task's rule says so."""
        with self._locked():
            self._settle()
            experiment = self._to_judge("keep")
            if experiment.score is None:
                raise NotAllowedError(
                    f"Experiment {experiment.number} gave no score ({self.failure(experiment)}), so it cannot be kept. "
                    f"Next: {self.position().next}."
                )
            if sha256(self.path.read_bytes()) != experiment.committed.file_sha256:
                raise NotAllowedError(
                    f"{self.task.files.editable} changed since experiment {experiment.number} ran. Call discard, or run it again."
                )
            if any(
                run.started.conditions != self.conditions() for run in experiment.runs if run.ended and run.ended.score is not None
            ):
                raise NotAllowedError(
                    f"The task, its read-only files or its data changed since experiment {experiment.number} ran. "
                    "Call run_experiment with replicate=true to run it again."
                )
            verdict, reason = self.suggest(experiment)
            if verdict != "keep":
                raise NotAllowedError(f"keep is refused: {reason}. Next: call discard, then try something else.")
            self._judge(experiment, "keep", reason, learned)
            return experiment

    def discard(self, learned: str | None = None) -> tuple[ExperimentState | None, str]:
        """Records the verdict and restores the file to the best experiment's. Returns the experiment, if one was judged,
        and the diff that was undone."""
        with self._locked():
            self._settle()
            self._mark_lost()
            target = self.text_at(self.state.head_commit)
            undone = unified_diff(target, self._current_text(), self.task.files.editable).text
            experiment = self.state.current
            if experiment is None:
                if not self._edited():
                    raise NotAllowedError(f"There is nothing to discard. Next: {self.position().next}.")
                self._restore_file()
                return None, undone
            if experiment.running:
                raise NotAllowedError(f"Experiment {experiment.number} is still running. Next: {self.position().next}.")
            if experiment.score is not None and self._is_unchanged_baseline(experiment):
                raise NotAllowedError("The baseline has a score and nothing to go back to: it can only be kept. Next: call keep.")
            reason = self.suggest(experiment)[1] if experiment.score is not None else f"no score: {self.failure(experiment)}"
            self._judge(experiment, "discard", reason, learned)
            return experiment, undone

    def stop(self) -> ExperimentState:
        """Asks the current run to end; it is recorded as killed."""
        running = self.state.running
        if running is None:
            raise NotAllowedError(f"No run is on. Next: {self.position().next}.")
        experiment, run = running
        spec = self.spec(run.started.run)
        if spec is not None:
            executor.stop(spec)
        return experiment

    def refresh(self) -> None:
        """Notices a run whose supervisor died. Cheap where none did."""
        running = self.state.running
        if running and not self._is_alive(running[1].started.run):
            with self._locked():
                self._mark_lost()

    def progress(self) -> dict[str, object]:
        """Where the current run is: phase, elapsed and limit in seconds."""
        running = self.state.running
        spec = self.spec(running[1].started.run) if running else None
        return executor.progress(spec) if spec else {"phase": "queued", "elapsed": 0.0, "limit": None}

    # --- what steps are made of ---

    def _locked(self):
        return locked(self.workspace.state_dir / f"session-{self.tag}.lock")

    def _start(self) -> None:
        base = self.workspace.head()
        task = self.workspace.task_at(base)
        self.workspace.check_committed(task)
        branch = f"autoresearch/{self.tag}"
        if self.workspace.ref(f"refs/heads/{branch}"):
            raise WorkspaceError(f"The branch {branch} exists, but no session of that name. Choose another: --session NAME.")
        self.ledger.append(
            SessionStarted(
                tag=self.tag,
                branch=branch,
                base_commit=base,
                file=task.files.editable,
                metric=task.metric.name,
                direction=task.metric.direction,
                noise_floor=task.metric.noise_floor,
                task_sha256=task.sha256,
            )
        )

    def _edited(self) -> bool:
        return self._current_text() != self.text_at(self.state.head_commit)

    def _current_text(self) -> str:
        return self.path.read_bytes().decode("utf-8", errors="replace") if self.path.is_file() else ""

    def _is_unchanged_baseline(self, experiment: ExperimentState) -> bool:
        base = self.workspace.blob(self.state.started.base_commit, self.task.files.editable)
        return self.state.best is None and experiment.committed.file_sha256 == sha256(base)

    def _may_repeat(self, experiment: ExperimentState) -> bool:
        """Whether the failure says nothing of the file, so that running it again is fair."""
        return self.failure(experiment) in ("lost", "killed")

    def _to_judge(self, step: str) -> ExperimentState:
        experiment = self.state.current
        if experiment is None or experiment.running:
            raise NotAllowedError(f"{step} is not allowed now: there is no result to judge. Next: {self.position().next}.")
        return experiment

    def _what_to_repeat(self, content: bytes, replicate: bool) -> ExperimentState | None:
        """The experiment that another run belongs to; None for a new experiment. Raises NotAllowedError."""
        state, digest = self.state, sha256(content)
        current, file = state.current, self.task.files.editable
        if current and current.score is not None:
            if replicate and digest == current.committed.file_sha256:
                return current
            raise NotAllowedError(f"Experiment {current.number} awaits its verdict. Next: {self.position().next}.")
        if current and digest == current.committed.file_sha256:
            if replicate or self._may_repeat(current):
                return current
            raise NotAllowedError(f"{file} is as it was when experiment {current.number} failed. Next: {self.position().next}.")
        if state.best and digest == state.best.committed.file_sha256:
            if replicate:
                return state.best
            raise NotAllowedError(
                f"{file} is the best experiment's ({state.best.number}), already scored. Next: call apply_patch; or pass "
                "replicate=true to run it again and measure the noise."
            )
        if not state.experiments and self._edited():
            raise NotAllowedError(f"The baseline comes first. Next: {self.position().next}.")
        if state.experiments and not replicate:
            self._refuse_what_was_tried(digest, self._change(content.decode("utf-8")))
        return None

    def _change(self, text: str) -> changes.Change | None:
        """What `text` changes against the best experiment's file."""
        return changes.between(self.task.files.editable, self.text_at(self.state.head_commit), text)

    def _refuse_what_was_tried(self, digest: str, change: changes.Change | None) -> None:
        """Raises NotAllowedError for a file, or a change, whose result is known."""
        file, again = self.task.files.editable, "or pass replicate=true to run it all the same"
        for earlier in self.state.experiments:
            committed = earlier.committed
            same_file = digest == committed.file_sha256
            if not same_file and (change is None or change.digest != committed.change_sha256):
                continue
            if earlier.score is None and self._may_repeat(earlier):
                continue
            what = "This very file" if same_file else "This change, comments and layout aside,"
            base = "" if committed.parent == self.state.head_commit else ", on another best than now"
            score = f", {self.task.metric.name} {format_score(earlier.score)}" if earlier.score is not None else ""
            raise NotAllowedError(
                f"{what} was experiment {earlier.number} ({earlier.status}{score}{base}): {plain(committed.description)}. "
                f"Next: change it, call discard, {again}."
            )
        if change is None and self.state.best:
            raise NotAllowedError(
                f"{file} differs from the best experiment's in comments or layout alone, so there is nothing to measure. "
                f"Next: change what it does, call discard, {again}."
            )

    def _pinned_conditions(self) -> str:
        """The conditions, which must be those of the session's first run: other data would make scores incomparable."""
        conditions, experiments = self.conditions(), self.state.experiments
        first = experiments[0].runs[0].started.conditions if experiments else conditions
        if conditions != first:
            raise NotAllowedError(
                f"The data in {self.data.path} is not what this session's first run used, so scores would not compare. A human "
                "must put it back (autoresearch-mcp prepare --force) or start another session (serve --session NAME)."
            )
        return conditions

    def _commit_experiment(
        self, content: bytes, description: str, hypothesis: str | None, conditions: str
    ) -> tuple[int, RunStarted]:
        """Commits the file on top of the best and records experiment and run: commit, row, ref, in this order."""
        state, file = self.state, self.task.files.editable
        parent = state.head_commit
        commit = self.workspace.commit_file(parent, file, content, description)
        diff = unified_diff(self.text_at(parent), content.decode("utf-8"), file)
        change = self._change(content.decode("utf-8"))
        with self.ledger.transaction() as transaction:
            number = transaction.next_experiment()
            if state.current:  # it failed, and this experiment is the attempt to mend it
                reason = f"patched further as experiment {number}"
                transaction.append(VerdictGiven(experiment=state.current.number, verdict="discard", reason=reason))
                transaction.append(Settled(experiment=state.current.number))
            transaction.append(
                ExperimentCommitted(
                    experiment=number,
                    session=self.tag,
                    commit=commit,
                    parent=parent,
                    file_sha256=sha256(content),
                    lines=len(split_lines(content.decode("utf-8"))),
                    added=len(diff.added),
                    removed=len(diff.removed),
                    description=description,
                    hypothesis=hypothesis,
                    change_sha256=change.digest if change else None,
                    places=change.places if change else [],
                )
            )
            run = RunStarted(run=transaction.next_run(), experiment=number, seed=SEED, conditions=conditions)
            transaction.append(run)
        self.workspace.set_ref(_experiment_ref(number), commit)
        return number, run

    def _launch(self, run: RunStarted, content: bytes) -> None:
        spec = RunSpec(
            run=run.run,
            experiment=run.experiment,
            tag=self.tag,
            seed=run.seed,
            task=self.task,
            folder=self.workspace.runs_dir / str(run.run),
            ledger=self.ledger.path,
            results=self.results_path,
            data=self.data.path if self.data.needed else None,
            slots=executor.slots_folder(),
            enforcement=detect().level,
        )
        executor.start(spec, {**self.pinned, self.task.files.editable: content})

    def _judge(self, experiment: ExperimentState, verdict: str, reason: str, learned: str | None) -> None:
        """The row first, git second."""
        learned = " ".join(learned.split())[:1000] if learned else None
        with self.ledger.transaction() as transaction:
            if experiment.verdict is not None:
                raise NotAllowedError(f"Experiment {experiment.number} has been judged by another client. Call status.")
            transaction.append(
                VerdictGiven.model_validate(
                    {"experiment": experiment.number, "verdict": verdict, "reason": reason, "learned": learned}
                )
            )
        self._settle()
        write_results(self.ledger, self.results_path)

    def _settle(self) -> None:
        """Finishes the git side of verdicts whose row is written: moves the branch, or restores the file."""
        for experiment in self.state.experiments:
            if experiment.verdict is None or experiment.settled:
                continue
            if experiment.verdict.verdict == "keep":
                self.workspace.move_branch(self.state.started.branch, experiment.committed.commit, self.worktree)
            else:
                self._restore_file()
            self.ledger.append(Settled(experiment=experiment.number))
            write_results(self.ledger, self.results_path)

    def _ensure_branch(self) -> None:
        """Puts a missing branch back; refuses to go on where somebody else has moved it."""
        started, state = self.state.started, self.state
        here = self.workspace.ref(f"refs/heads/{started.branch}")
        known = {started.base_commit, *(e.committed.commit for e in state.experiments)}
        if here is not None and here not in known:
            raise WorkspaceError(
                f"The branch {started.branch} stands at {here[:7]}, which this session did not make. Start another session with "
                f"--session NAME, or put it back: git branch -f {started.branch} {state.head_commit[:7]}"
            )
        unsettled = any(e.verdict and not e.settled for e in state.experiments)
        if here is None or (here != state.head_commit and not unsettled):
            self.workspace.set_ref(f"refs/heads/{started.branch}", state.head_commit)

    def _restore_refs(self) -> None:
        """Every experiment stays reachable, also one whose ref a death left unwritten."""
        have = set(self.workspace.repo.git.for_each_ref("--format=%(refname)", "refs/autoresearch/experiments").split())
        for experiment in self.state.experiments:
            if _experiment_ref(experiment.number) not in have:
                self.workspace.set_ref(_experiment_ref(experiment.number), experiment.committed.commit)

    def _restore_file(self) -> None:
        self._write_file(self.workspace.blob(self.state.head_commit, self.task.files.editable))

    def _write_file(self, content: bytes) -> None:
        mode = self.path.stat().st_mode & 0o777 if self.path.is_file() else 0o644
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, content, mode)

    def _restore_read_only(self) -> str:
        """Puts read-only files of the worktree back where they were changed; runs use the pinned blobs either way."""
        changed: list[str] = []
        for name, content in self.pinned.items():
            path = self.worktree / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content)
                changed.append(name)
        return (
            f"{', '.join(changed)} had been changed in the worktree and was restored; the run uses the pinned version"
            if changed
            else ""
        )

    def _is_alive(self, run: int) -> bool:
        spec = self.spec(run)
        return spec is not None and executor.is_alive(spec)

    def _mark_lost(self) -> None:
        """Under the lock: records a run whose supervisor is dead without a result, and ends what it left behind."""
        running = self.state.running
        if running is None or self._is_alive(running[1].started.run):
            return
        number = running[1].started.run
        spec = self.spec(number)
        if spec is not None:
            executor.clean_up(spec)
        with self.ledger.transaction() as transaction:
            if transaction.state.runs[number].ended is None:
                reason = "the run's supervisor died before it recorded a result (killed, or the machine went down)"
                transaction.append(RunEnded(run=number, outcome="crash", failure="lost", excerpt=reason))
        write_results(self.ledger, self.results_path)


def _experiment_ref(number: int) -> str:
    return f"refs/autoresearch/experiments/{number}"


def wait_until_ended(session: Session, experiment: int, seconds: float, interval: float = 0.1) -> bool:
    """Blocks until the experiment's run has ended or `seconds` are over; whether it ended."""
    deadline = time.monotonic() + seconds
    while session.experiment(experiment).running:
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
        session.refresh()
    return True
