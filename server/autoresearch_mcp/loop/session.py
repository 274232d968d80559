"""One line of research in a workspace, and the steps of the loop.

Every step takes the session's lock, finishes what an earlier one left half done, asks the rules, and checks the ledger inside the
transaction that it writes in; so any number of servers may share a session. Opening a session only looks; starting one makes its
row, branch and worktree. All methods block; the app calls them in worker threads.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from secrets import token_hex
from typing import Literal

from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import NotAllowedError, NotFoundError, WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.files import locked, sha256
from autoresearch_mcp.loop import changes, patches, rules
from autoresearch_mcp.loop.diffs import Diff, unified_diff
from autoresearch_mcp.loop.recovery import Recovery
from autoresearch_mcp.loop.sizes import check_size
from autoresearch_mcp.loop.worktree import FileText, Worktree
from autoresearch_mcp.record.events import (
    ExperimentCommitted,
    RunEnded,
    RunStarted,
    SessionStarted,
    Settled,
    VerdictGiven,
)
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.state import ExperimentState, SessionState
from autoresearch_mcp.run import clock
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import Task
from autoresearch_mcp.text import one_line, split_lines
from autoresearch_mcp.workspace import Workspace, experiment_ref

SEED = 42  # of the first run of every experiment, so that experiments differ by their file alone; repeats count up
DESCRIPTION, LEARNED = 500, 2000  # characters that are recorded


def open_ledger(workspace: Workspace) -> Ledger:
    return Ledger(workspace.state_dir / "ledger.db")


@dataclass(frozen=True)
class Judgement:
    experiment: ExperimentState | None
    """None where discard only took an edit back that never ran."""
    undone: Diff | None = None
    """What discard took out of the file."""
    note: str = ""


class Session:
    """Made by `open` or `start`."""

    def __init__(self, workspace: Workspace, ledger: Ledger, tag: str, executor: Executor | None = None):
        self.workspace, self.ledger, self.tag = workspace, ledger, tag
        self.executor = executor or LocalExecutor()
        started = self.state.started
        self.task: Task = workspace.task_at(started.base_commit)
        self.worktree = Worktree(workspace.worktree_path(tag), self.task.files.editable)
        self.results = Results(ledger, workspace.root / "results.tsv")
        self.recovery = Recovery(workspace, ledger, tag, self.worktree, self.executor, self.results)

    @classmethod
    def open(cls, workspace: Workspace, ledger: Ledger, tag: str | None = None) -> "Session":
        """The session `tag`, the latest for None, as it is. Raises NotFoundError where there is none."""
        sessions = ledger.state().sessions
        if not sessions:
            raise NotFoundError(
                f"No session has been started in {workspace.root}. Run: autoresearch-mcp serve --workspace {workspace.root}"
            )
        tag = tag or max(sessions, key=lambda known: sessions[known].at)
        if tag not in sessions:
            raise NotFoundError(f"There is no session {tag!r} in {workspace.root}. Choose one of: {', '.join(sorted(sessions))}.")
        return cls(workspace, ledger, tag)

    @classmethod
    def start(cls, workspace: Workspace, ledger: Ledger, tag: str | None = None) -> "Session":
        """The session `tag`, the latest for None, ready for steps; a new one where there is none.

        Raises WorkspaceError or TaskError.
        """
        sessions = ledger.state().sessions
        latest = max(sessions, key=lambda known: sessions[known].at) if sessions else datetime.now().strftime("%b%d").lower()
        tag = tag or latest
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", tag) or tag.endswith((".lock", ".")) or ".." in tag:
            raise WorkspaceError(f"{tag!r} is no session name. Use letters, digits, '-', '_' and '.', at most 50, like nov23.")
        with locked(_lock(workspace, tag), "start"):
            if tag not in ledger.state().sessions:
                _record_start(workspace, ledger, tag)
        session = cls(workspace, ledger, tag)
        with session._step("start"):  # that it begins is all
            pass
        if not session.results.path.exists():
            session.results.write()
        return session

    # --- what there is ---

    @property
    def state(self) -> SessionState:
        return self.ledger.state().sessions[self.tag]

    @cached_property
    def pinned(self) -> dict[str, bytes]:
        """The read-only files as they were when the session started."""
        return self.workspace.pinned(self.task, self.state.started.base_commit)

    @cached_property
    def data(self) -> DataFolder:
        return DataFolder(self.task, self.pinned)

    def conditions(self) -> str:
        """Hash of everything but the editable file that a result depends on: task, read-only files, data."""
        parts = [self.state.started.task_sha256, self.data.fingerprint()]
        parts += [f"{path} {sha256(content)}" for path, content in sorted(self.pinned.items())]
        return sha256("\n".join(parts).encode())

    def blob(self, commit: str) -> bytes:
        """The editable file at a commit."""
        return self.workspace.blob(commit, self.task.files.editable)

    def text_at(self, commit: str) -> str:
        return self.blob(commit).decode("utf-8", errors="replace")

    def read(self) -> FileText:
        """The editable file as it is now. Raises WorkspaceError where it is no UTF-8 text file."""
        return self.worktree.text(self._expected())

    def file(self) -> rules.File:
        """The editable file as the rules see it."""
        state = self.state
        text, readable = self.worktree.look(self._expected())
        return rules.File(text, self.text_at(state.head_commit), self.text_at(state.started.base_commit), readable)

    def _expected(self) -> bytes:
        """What the editable file holds while nobody edits it: the experiment that awaits its verdict, else the best."""
        experiment = rules.current(self.state)
        return self.blob(experiment.committed.commit if experiment else self.state.head_commit)

    def position(self) -> rules.Position:
        """Which steps are allowed now."""
        return rules.position(self.state, self.task, self.file())

    def experiment(self, number: int | None = None) -> ExperimentState:
        """An experiment of this session, the latest one for None. Raises NotFoundError."""
        state = self.state
        if not state.experiments:
            raise NotFoundError("There is no experiment yet. Call run_experiment to run the baseline.")
        found = state.experiments[-1] if number is None else state.experiment(number)
        if found is None:
            last = state.experiments[-1].number
            raise NotFoundError(f"There is no experiment {number} in this session; they are numbered up to {last}.")
        return found

    def spec(self, run: int) -> RunSpec | None:
        return self.recovery.spec(run)

    def progress(self) -> Progress:
        """Where the oldest run that is on stands."""
        running = self.state.running
        spec = self.spec(running[0][1].started.run) if running else None
        return self.executor.progress(spec) if spec else Progress()

    # --- steps ---

    def apply_patch(self, patch: str) -> tuple[Diff, FileText]:
        """Changes the editable file; returns what changed and the new text. Raises PatchError, NotAllowedError."""
        with self._step("apply_patch"):
            rules.require("apply_patch", self.state, self.task, self.file())
            before, name = self.read().text, self.task.files.editable
            after = patches.apply_patch(patch, name, before, root=str(self.worktree.root))
            check_size(self.task.files, after)
            content = after.encode("utf-8")
            self.worktree.write(content)
            return unified_diff(before, after, name), FileText.of(content)

    def run_experiment(self, description: str, hypothesis: str | None = None, replicate: bool = False) -> tuple[int, str]:
        """Commits the file and starts a run, or joins the run that is on. Returns the experiment's number and a note."""
        with self._step("run_experiment"):
            state = self.state
            if state.running:
                return state.running[0][0].number, "a run is on already; this is its state"
            rules.require("run_experiment", state, self.task, self.file())
            description = one_line(description, DESCRIPTION)
            if not description:
                raise NotAllowedError("description is empty. Say in a few words what this experiment tries, then call again.")
            self.data.require(self.workspace.root)
            changed = self.worktree.restore(self.pinned)
            content = self.read().text.encode("utf-8")
            patches.check_syntax(self.task.files.editable, content.decode())
            check_size(self.task.files, content.decode())
            again = rules.what_to_repeat(state, self.task, self.file(), replicate)
            conditions = self._pinned_conditions()
            run = (
                self._record_run(again, conditions)
                if again
                else self._record_experiment(content, description, hypothesis, conditions)
            )
            self._launch(run, self.blob(again.committed.commit) if again else content)
        names = ", ".join(changed)
        return (
            run.experiment,
            f"{names} had been changed in the worktree and was restored; the run uses the pinned version" if names else "",
        )

    def keep(self, learned: str | None = None) -> Judgement:
        """Makes the current experiment the best. Raises NotAllowedError unless the rules say so."""
        with self._step("keep"):
            state = self.state
            rules.require("keep", state, self.task, self.file())
            experiment = rules.current(state)
            assert experiment is not None
            conditions = self.conditions()
            if any(run.started.conditions != conditions for run in experiment.runs if run.ended and run.ended.score is not None):
                raise NotAllowedError(
                    f"The task, its read-only files or its data changed since experiment {experiment.number} ran. "
                    "Call run_experiment with replicate=true to run it again."
                )
            verdict = rules.verdict(state, self.task, experiment)
            return Judgement(experiment, note=self._judge(experiment, "keep", verdict.reason, learned))

    def discard(self, learned: str | None = None) -> Judgement:
        """Records the verdict and restores the file to the best experiment's. Raises NotAllowedError."""
        with self._step("discard"):
            state, file = self.state, self.file()
            rules.require("discard", state, self.task, file)
            undone = unified_diff(file.best, file.text, self.task.files.editable)
            experiment = rules.current(state)
            if experiment is None:
                return Judgement(None, undone, self.worktree.write(self.blob(state.head_commit)))
            if experiment.score is not None:
                reason = rules.verdict(state, self.task, experiment).reason
            else:
                reason = f"no score: {experiment.failure}"
            return Judgement(experiment, undone, self._judge(experiment, "discard", reason, learned))

    def stop(self) -> ExperimentState:
        """Asks the oldest run that is on to end; it is recorded as killed."""
        state = self.state
        rules.require("stop_experiment", state, self.task, self.file())
        experiment, run = state.running[0]
        if (spec := self.spec(run.started.run)) is not None:
            self.executor.stop(spec)
        return experiment

    def refresh(self) -> None:
        """Notices a run that nobody supervises any more. Cheap where there is none."""
        self.workspace.require_root()
        if self.recovery.lost():
            with locked(_lock(self.workspace, self.tag), "refresh"):
                self.recovery.collect()

    # --- what steps are made of ---

    @contextmanager
    def _step(self, name: str) -> Generator[None]:
        """The session's lock, with everything that an earlier death left half done finished."""
        self.workspace.require_root()
        with locked(_lock(self.workspace, self.tag), name):
            self.recovery.finish()
            yield

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

    def _record_run(self, experiment: ExperimentState, conditions: str) -> RunStarted:
        """Records another run of an experiment."""
        with self.ledger.transaction() as transaction:
            seed = SEED + len(experiment.runs)
            run = RunStarted(
                run=transaction.next_run(), experiment=experiment.number, seed=seed, conditions=conditions, token=token_hex(8)
            )
            transaction.append(run)
        return run

    def _record_experiment(self, content: bytes, description: str, hypothesis: str | None, conditions: str) -> RunStarted:
        """Commits the file on top of the best and records experiment and run: commit, row, ref, in this order."""
        state, name = self.state, self.task.files.editable
        parent, text = state.head_commit, content.decode("utf-8")
        commit = self.workspace.commit_file(parent, name, content, description)
        best = self.text_at(parent)
        diff, change = unified_diff(best, text, name), changes.between(name, best, text)
        with self.ledger.transaction() as transaction:
            number = transaction.next_experiment()
            if failed := rules.current(state):  # this experiment is the attempt to mend it
                reason = f"patched further as experiment {number}"
                transaction.append(VerdictGiven(experiment=failed.number, verdict="discard", reason=reason))
                transaction.append(Settled(experiment=failed.number))
            transaction.append(
                ExperimentCommitted(
                    experiment=number,
                    session=self.tag,
                    commit=commit,
                    parent=parent,
                    file_sha256=sha256(content),
                    lines=len(split_lines(text)),
                    added=len(diff.added),
                    removed=len(diff.removed),
                    description=description,
                    hypothesis=one_line(hypothesis, LEARNED) if hypothesis else None,
                    change_sha256=change.digest if change else None,
                    program_sha256=changes.program_digest(name, text),
                    places=change.places if change else [],
                )
            )
            run = RunStarted(run=transaction.next_run(), experiment=number, seed=SEED, conditions=conditions, token=token_hex(8))
            transaction.append(run)
        self.workspace.set_ref(experiment_ref(number), commit)
        return run

    def _launch(self, run: RunStarted, content: bytes) -> None:
        spec = RunSpec(
            run=run.run,
            token=run.token,
            experiment=run.experiment,
            tag=self.tag,
            seed=run.seed,
            task=self.task.model_copy(update={"run": clock.limits(self.task.run, self.state.baseline_seconds)}),
            folder=self.workspace.runs_dir / str(run.run),
            ledger=self.ledger.path,
            results=self.results.path,
            data=self.data.path if self.data.needed else None,
            enforcement=detect().level,
        )
        try:
            self.executor.start(spec, {**self.pinned, self.task.files.editable: content})
        except WorkspaceError as error:
            reason, never = f"the run could not be started: {error}", {"queued": 0.0}
            self.ledger.append(RunEnded(run=run.run, outcome="crash", failure="lost", seconds=never, excerpt=reason))
            raise

    def _judge(self, experiment: ExperimentState, verdict: Literal["keep", "discard"], reason: str, learned: str | None) -> str:
        """The row first, git second. Returns a note."""
        with self.ledger.transaction() as transaction:
            if experiment.verdict is not None:
                raise NotAllowedError(f"Experiment {experiment.number} has been judged by another client. Call status.")
            taught = one_line(learned, LEARNED) if learned else None
            transaction.append(VerdictGiven(experiment=experiment.number, verdict=verdict, reason=reason, learned=taught or None))
        notes = [self.recovery.settle(), self.results.write()]
        return "; ".join(note for note in notes if note)


def _lock(workspace: Workspace, tag: str):
    return workspace.state_dir / f"session-{tag}.lock"


def _record_start(workspace: Workspace, ledger: Ledger, tag: str) -> None:
    """The row of a new session. Raises WorkspaceError or TaskError where its task cannot be pinned."""
    base = workspace.head()
    task = workspace.task_at(base)
    workspace.check_committed(task)
    branch = f"autoresearch/{tag}"
    if workspace.ref(f"refs/heads/{branch}") not in (None, base):
        raise WorkspaceError(
            f"The branch {branch} exists, but the ledger has no session of that name. Choose another: --session NAME. If the "
            "ledger was lost, put .autoresearch/ledger.db back from a backup first."
        )
    workspace.set_ref(f"refs/heads/{branch}", base)  # before the row: what git refuses starts no session
    ledger.append(
        SessionStarted(
            tag=tag,
            branch=branch,
            base_commit=base,
            file=task.files.editable,
            metric=task.metric.name,
            direction=task.metric.direction,
            noise_floor=task.metric.noise_floor,
            task_sha256=task.sha256,
            experiments_before=workspace.highest_experiment(),
            runs_before=workspace.highest_run(),
        )
    )
