"""One line of research in a workspace, and the steps of the loop.

Every step takes the session's lock, finishes what an earlier one left half done, asks the rules, and checks the ledger inside the
transaction that it writes in; so any number of servers may share a session. Opening a session only looks; starting one makes its
row, branch and worktree. All methods block; the app calls them in worker threads.
"""

import re
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import NotAllowedError, NotFoundError, WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.executors.chosen import ChosenExecutor
from autoresearch_mcp.files import locked
from autoresearch_mcp.loop import hooks, limits, patches, rules, verdicts, waves
from autoresearch_mcp.loop.diffs import Diff, unified_diff
from autoresearch_mcp.loop.recovery import Recovery
from autoresearch_mcp.loop.rows import LEARNED, latest_tag, record_start
from autoresearch_mcp.loop.runs import Runs
from autoresearch_mcp.loop.sizes import check_size
from autoresearch_mcp.loop.worktree import FileText, Worktree
from autoresearch_mcp.record.events import (
    Purpose,
    RunStarted,
    VerdictGiven,
)
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.noise import shrunk
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import PROGRAM, TASK_FILE, Task
from autoresearch_mcp.text import one_line
from autoresearch_mcp.workspace import Workspace

DESCRIPTION = 500  # characters that are recorded


def open_ledger(workspace: Workspace) -> Ledger:
    return Ledger(workspace.state_dir / "ledger.db")


@dataclass(frozen=True)
class Judgement:
    experiment: ExperimentState | None
    """None where discard only took an edit back that never ran, or a wave with nothing in it to keep."""
    undone: Diff | None = None
    """What discard took out of the file."""
    note: str = ""
    others: Sequence[ExperimentState] = ()
    """Of a wave: those that were discarded with it."""


class Session:
    """Made by `open` or `start`."""

    def __init__(self, workspace: Workspace, ledger: Ledger, tag: str, executor: Executor | None = None):
        self.workspace, self.ledger, self.tag = workspace, ledger, tag
        started = self.state.started
        self.task: Task = workspace.task_at(started.base_commit)
        self.executor = executor or ChosenExecutor(self.task.run.executor)
        self.worktree = Worktree(workspace.worktree_path(tag), self.task.files.editable)
        self.results = Results(ledger, workspace.root / "results.tsv")
        self.runs = Runs(workspace, ledger, tag, self.task, self.executor, self.results)
        self.hooks = hooks.Hooks(workspace, self.task, tag, lambda: self.state)
        self.recovery = Recovery(workspace, ledger, tag, self.worktree, self.executor, self.results)

    @classmethod
    def open(cls, workspace: Workspace, ledger: Ledger, tag: str | None = None) -> "Session":
        """The session `tag`, the latest for None, as it is. Raises NotFoundError where there is none."""
        sessions = ledger.state().sessions
        if not sessions:
            raise NotFoundError(
                f"No session has been started in {workspace.root}. Run: autoresearch-mcp serve --workspace {workspace.root}"
            )
        tag = tag or latest_tag(sessions)
        if tag not in sessions:
            known = ", ".join(sorted(sessions))
            raise NotFoundError(f"There is no session {one_line(tag, 60)!r} in {workspace.root}. Choose one of: {known}.")
        return cls(workspace, ledger, tag)

    @classmethod
    def start(cls, workspace: Workspace, ledger: Ledger, tag: str | None = None) -> "Session":
        """The session `tag`, the latest for None, ready for steps; a new one where there is none.

        Raises WorkspaceError or TaskError.
        """
        sessions = ledger.state().sessions
        latest = latest_tag(sessions) if sessions else datetime.now().strftime("%b%d").lower()
        tag = tag or latest
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", tag) or tag.endswith((".lock", ".")) or ".." in tag:
            raise WorkspaceError(f"{one_line(tag, 60)!r} is no session name. Use up to 50 letters, digits, '-', '_', '.'.")
        with locked(_lock(workspace, tag), "start"):
            if tag not in ledger.state().sessions:
                record_start(workspace, ledger, tag)
        session = cls(workspace, ledger, tag)
        with session.step("start"):  # that it begins is all
            pass
        if not session.results.path.exists():
            session.results.write()
        return session

    # --- what there is ---

    @property
    def state(self) -> SessionState:
        return self.ledger.state().sessions[self.tag]

    @property
    def data(self) -> DataFolder:
        return self.runs.data

    def blob(self, commit: str) -> bytes:
        """The editable file at a commit."""
        return self.workspace.blob(commit, self.task.files.editable)

    def text_at(self, commit: str) -> str:
        return self.blob(commit).decode("utf-8", errors="replace")

    def read(self) -> FileText:
        """The editable file as it is now. Raises WorkspaceError where it is no UTF-8 text file."""
        return self.worktree.text(self._expected())

    def stale(self) -> list[str]:
        """Files that this session has pinned, and that the user has committed anew since: it goes on with what it has."""
        names = (TASK_FILE, PROGRAM, *self.task.files.read_only)
        return self.workspace.changed_since(self.state.started.base_commit, names)

    def program(self) -> str:
        """Which program.md the session works by: the first digits of its hash."""
        return self.workspace.program_digest(self.state.started.base_commit)

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
        now = rules.position(self.state, self.task, self.file(), self.done())
        if "run_experiment" not in now.allowed or not self.data.missing():
            return now
        step = f"the data is not there yet: a human must run `autoresearch-mcp prepare --workspace {self.workspace.root}`"
        if self.data.in_preparation:
            step = "the data is being prepared: call status in a minute"
        return replace(now, next=f"{step}, and then {now.next}", routine=False)

    def done(self) -> str:
        """Why the session is over, by the limits of its task, and what it has brought; empty while it goes on."""
        state = self.state
        limit = limits.reached(state, self.task, time.time())
        return f"the session is done: {limit}. {limits.summary(state, self.task)}" if limit else ""

    def experiment(self, number: int | None = None) -> ExperimentState:
        """An experiment of this session, the latest one for None. Raises NotFoundError."""
        state = self.state
        if not state.experiments:
            raise NotFoundError("There is no experiment yet. The first call of run_experiment runs the baseline.")
        found = state.experiments[-1] if number is None else state.experiment(number)
        if found is None:
            last = state.experiments[-1].number
            raise NotFoundError(f"There is no experiment {number} in this session; they are numbered up to {last}.")
        return found

    def spec(self, run: int) -> RunSpec | None:
        return self.recovery.spec(run)

    def progress(self, number: int | None = None) -> Progress:
        """Where the run of an experiment stands; the oldest that is on where it has none, and is no wave's member."""
        state = self.state
        running = [one for one in state.running if one[0].number == number]
        if not running and number not in [member.number for member in state.wave]:
            running = state.running
        spec = self.spec(running[0][1].started.run) if running else None
        return self.executor.progress(spec) if spec else Progress()

    # --- steps ---

    def apply_patch(self, patch: str) -> tuple[Diff, FileText]:
        """Changes the editable file; returns what changed and the new text. Raises PatchError, NotAllowedError."""
        with self.step("apply_patch"):
            rules.require("apply_patch", self.state, self.task, self.file(), self.done())
            before, name = self.read().text, self.task.files.editable
            after = patches.apply_patch(patch, name, before, root=str(self.worktree.root))
            check_size(self.task.files, after)
            content = after.encode("utf-8")
            self.worktree.write(content)
            return unified_diff(before, after, name), FileText.of(content)

    def run_experiment(self, description: str, hypothesis: str | None = None, replicate: bool = False) -> tuple[int, str]:
        """Commits the file and starts a run, or joins the run that is on. Returns the experiment's number and a note."""
        with self.step("run_experiment"):
            state = self.state
            if state.running:
                return state.running[0][0].number, "a run is on already; this is its state"
            rules.require("run_experiment", state, self.task, self.file(), self.done())
            description = one_line(description, DESCRIPTION)
            if not description:
                raise NotAllowedError("description is empty. Say in a few words what this experiment tries, then call again.")
            self.data.require(self.workspace.root)
            changed = self.worktree.restore(self.runs.pinned)
            content = self.read().text.encode("utf-8")
            patches.check_syntax(self.task.files.editable, content.decode())
            check_size(self.task.files, content.decode())
            again = rules.what_to_repeat(state, self.task, self.file(), replicate)
            if again is not None and rules.due(state, self.task) is not again and (done := self.done()):
                raise NotAllowedError(f"No further run is made: {done}. Next: {self.position().next}.")
            if again is None:
                number = self.runs.first(content, description, hypothesis).experiment
            else:
                needed = again.score is None or rules.due(state, self.task) is again
                number = self._repeat(again, "search" if needed else "replicate")
        names = ", ".join(changed)
        return (
            number,
            f"{names} had been changed in the worktree and was restored; the run uses the pinned version" if names else "",
        )

    def keep(self, learned: str | None = None, number: int | None = None) -> Judgement:
        """Makes the current experiment the best; of a wave the one of that number, or the best of those that earned it, and the
        others are discarded. Raises NotAllowedError unless the rules say so.
        """
        with self.step("keep"):
            state = self.state
            rules.require("keep", state, self.task, self.file(), number=number)
            experiment = rules.judged(state, self.task, number)
            assert experiment is not None
            conditions = self.runs.conditions()
            if any(run.started.conditions != conditions for run in experiment.runs if run.ended and run.ended.score is not None):
                raise NotAllowedError(
                    f"The task, its read-only files or its data changed since experiment {experiment.number} ran. "
                    "Call run_experiment with replicate=true to run it again."
                )
            verdict = verdicts.verdict(state, self.task, experiment)
            fates = [(other, waves.fate(state, self.task, other, experiment)) for other in state.wave if other is not experiment]
            return Judgement(experiment, None, self._judge(experiment, "keep", verdict, learned, fates), [e for e, _ in fates])

    def discard(self, learned: str | None = None) -> Judgement:
        """Records the verdict and restores the file to the best experiment's. Raises NotAllowedError."""
        with self.step("discard"):
            state, file = self.state, self.file()
            rules.require("discard", state, self.task, file, self.done())
            undone = unified_diff(file.best, file.text, self.task.files.editable)
            if state.wave:
                fates = [(member, waves.fate(state, self.task, member, None)) for member in state.wave]
                note = self._judge(fates[0][0], "discard", fates[0][1], learned, fates[1:])
                return Judgement(None, undone, note, [member for member, _ in fates])
            experiment = rules.current(state)
            if experiment is None:
                return Judgement(None, undone, self.worktree.write(self.blob(state.head_commit)))
            verdict = verdicts.Verdict("discard", f"no score: {experiment.failure}")
            if experiment.score is not None:
                verdict = verdicts.verdict(state, self.task, experiment)
            return Judgement(experiment, undone, self._judge(experiment, "discard", verdict, learned))

    def stop(self, for_human: bool = False, number: int | None = None) -> ExperimentState:
        """Asks the oldest run that is on, or an experiment's, to end; it is recorded as killed. Only a human may end a human's."""
        state = self.state
        if not (for_human and state.running):
            rules.require("stop_experiment", state, self.task, self.file(), number=number)
        experiment, run = rules.to_stop(state, number)
        if (spec := self.spec(run.started.run)) is not None:
            self.executor.stop(spec)
        return experiment

    def advance(self) -> None:
        """Makes the run that a verdict waits for, if none is on: repeats are the server's. Cheap where there is none to make."""
        self.refresh()
        if self.task.notify.on_end and self.position().phase == "done":
            self.hooks.fire("end", {"reason": self.done()})
        due = rules.due(self.state, self.task) is not None and self.runs.has_room
        if not due and waves.against(self.state, self.task) is None:
            return
        with self.step("advance"):
            while (experiment := rules.due(self.state, self.task)) and self.runs.has_room:  # of a wave several
                self._repeat(experiment)
            while (experiment := waves.against(self.state, self.task)) is not None:
                self._judge(experiment, "discard", waves.earned(self.state, self.task, experiment), None)

    def start_run(self, experiment: ExperimentState, purpose: Purpose, seed: int) -> RunStarted:
        """Runs an experiment's own commit again, to examine it. Raises NotAllowedError, WorkspaceError."""
        with self.step("start_run"):
            return self.runs.again(experiment, purpose, seed)

    def waits(self, number: int | None) -> bool:
        """Whether an experiment's result is still to come: it runs, or another run is made for its verdict. None: for the wave."""
        if number is None:
            return bool(self.state.running) or not waves.is_over(self.state, self.task)
        state, experiment = self.state, self.experiment(number)
        if experiment.running or experiment in state.wave:
            return bool(experiment.running) or not waves.is_decided(state, self.task, experiment)
        return experiment is rules.current(state) and bool(state.running or rules.due(state, self.task))

    def refresh(self) -> None:
        """Notices a run that nobody supervises any more. Cheap where there is none."""
        self.workspace.require_root()
        if self.recovery.lost():
            with locked(_lock(self.workspace, self.tag), "refresh"):
                self.recovery.collect()

    # --- what steps are made of ---

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """The session's lock, with everything that an earlier death left half done finished."""
        self.workspace.require_root()
        with locked(_lock(self.workspace, self.tag), name):
            self.recovery.finish()
            yield

    def _repeat(self, experiment: ExperimentState, purpose: Purpose = "search") -> int:
        """Runs an experiment again; returns the one that awaits its verdict, which may be another."""
        self.runs.again(experiment, purpose)
        return (rules.current(self.state) or experiment).number

    def _judge(
        self,
        experiment: ExperimentState,
        given: Literal["keep", "discard"],
        earned: verdicts.Verdict,
        learned: str | None,
        others: Sequence[tuple[ExperimentState, verdicts.Verdict]] = (),
    ) -> str:
        """The row first, git second. Returns a note. `others`: those of a wave that are discarded with it."""
        with self.ledger.transaction() as transaction:
            if experiment.verdict is not None:
                raise NotAllowedError(f"Experiment {experiment.number} has been judged by another client. Call status.")
            for other, fate in others:
                lost = fate.gain.figures if fate.gain else []
                transaction.append(VerdictGiven(experiment=other.number, verdict="discard", reason=fate.reason, gain=lost))
            taught = one_line(learned, LEARNED) if learned else None
            simpler = given == "keep" and earned.simpler
            gain = shrunk(earned.gain) if earned.gain and given == "keep" else earned.gain
            figures = gain.figures if gain and not simpler else []
            transaction.append(
                VerdictGiven(
                    experiment=experiment.number,
                    verdict=given,
                    reason=earned.reason,
                    learned=taught or None,
                    simpler=simpler,
                    gain=figures,
                )
            )
        notes = [self.recovery.settle(), self.results.write()]
        self.hooks.judged([experiment, *(other for other, _ in others)], self.done)
        return "; ".join(note for note in notes if note)


def _lock(workspace: Workspace, tag: str):
    return workspace.state_dir / f"session-{tag}.lock"
