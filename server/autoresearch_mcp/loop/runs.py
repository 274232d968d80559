"""What a session's runs are made from, and how one is put on record and started: commit, row, ref, process, in this order."""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from secrets import token_hex
from typing import Any

from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import NotAllowedError, WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import rules
from autoresearch_mcp.loop.evidence import known_curves
from autoresearch_mcp.loop.rows import experiment_row
from autoresearch_mcp.record.curves import Earlier
from autoresearch_mcp.record.events import NEVER, Purpose, RunEnded, RunStarted, Settled, VerdictGiven
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.run import clock, places
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import Task, torch_version
from autoresearch_mcp.workspace import Workspace, experiment_ref

SETTLING = 10.0  # seconds that runs have to begin before others are started that wait
SEED = 42  # of the first run of every experiment, so that experiments differ by their file alone; repeats count up


class Runs:
    """Of one session; to be used under its lock."""

    def __init__(self, workspace: Workspace, ledger: Ledger, tag: str, task: Task, executor: Executor, results: Results):
        self._workspace, self._ledger, self._tag, self._task = workspace, ledger, tag, task
        self._executor, self._results = executor, results
        self._beginners = 2
        """How many may begin at once, as it was when room was last asked for: to ask may take a while."""
        self._launched = -SETTLING
        """When a run was last started that had room."""

    @property
    def _state(self) -> SessionState:
        return self._ledger.state().sessions[self._tag]

    @cached_property
    def pinned(self) -> dict[str, bytes]:
        """The read-only files as they were when the session started."""
        return self._workspace.pinned(self._task, self._state.started.base_commit)

    @cached_property
    def data(self) -> DataFolder:
        return DataFolder(self._task, self.pinned | self._workspace.sources(self._task, self._state.started.base_commit))

    def conditions(self) -> str:
        """Hash of everything but the editable file that a result depends on: task, read-only files, data."""
        parts = [self._state.started.task_sha256, self.data.fingerprint()]
        parts += [f"{path} {sha256(content)}" for path, content in sorted(self.pinned.items())]
        return sha256("\n".join(parts).encode())

    def comparable_conditions(self) -> str:
        """The conditions, which must be those of the session's first run: other data would make scores incomparable."""
        conditions = self.conditions()
        if conditions != self._first_conditions(conditions):
            raise NotAllowedError(
                f"The data in {self.data.path} is not what this session's first run used, so scores would not compare. A human "
                "must put it back (autoresearch-mcp prepare --force) or start another session (serve --session NAME)."
            )
        return conditions

    @property
    def _best(self) -> str:
        """The text of the best's file."""
        return self._workspace.blob(self._state.head_commit, self._task.files.editable).decode("utf-8", errors="replace")

    def _first_conditions(self, now: str) -> str:
        return next((run.started.conditions for experiment in self._state.experiments for run in experiment.runs), now)

    def again(self, experiment: ExperimentState, purpose: Purpose = "search", seed: int | None = None) -> RunStarted:
        """Runs an experiment once more; without a `seed` with the one that every experiment's run of that number has. Raises
        NotAllowedError, WorkspaceError.
        """
        self.data.require(self._workspace.root)
        conditions = self.comparable_conditions()
        first = not experiment.runs and self._task.run.prune  # of a wave that waited for room
        earlier = known_curves(self._state) if first else []
        seed = SEED + sum(run.counts for run in experiment.runs) if seed is None else seed
        with self._ledger.transaction() as transaction:
            run = _run_row(transaction.next_run(), experiment.number, seed, conditions, purpose)
            transaction.append(run)
        self._launch(run, self._workspace.blob(experiment.committed.commit, self._task.files.editable), earlier)
        return run

    def enter(self, content: bytes, description: str) -> int:
        """Commits a file on top of the best as an experiment that nobody runs yet; returns its number."""
        state, name = self._state, self._task.files.editable
        commit = self._workspace.commit_file(state.head_commit, name, content, description)
        before = self._best
        with self._ledger.transaction() as transaction:
            number = transaction.next_experiment()
            transaction.append(experiment_row(number, state, commit, before, content, description, None))
        self._workspace.set_ref(experiment_ref(number), commit)
        return number

    def wave(self, entries: Sequence[tuple[bytes, str, str | None]]) -> list[int]:
        """Commits files on top of the best, each with its description and hypothesis, as experiments that are tried at once, and
        runs them. Their numbers. Raises NotAllowedError, WorkspaceError.
        """
        if not entries:
            return []
        state, name, conditions = self._state, self._task.files.editable, self.comparable_conditions()
        before = self._best
        commits = self._workspace.commit_files(state.head_commit, name, [(content, said) for content, said, _ in entries])
        with self._ledger.transaction() as transaction:
            first, run = transaction.next_experiment(), transaction.next_run()
            for number, (commit, (content, description, hypothesis)) in enumerate(zip(commits, entries, strict=True), first):
                row = experiment_row(number, state, commit, before, content, description, hypothesis)
                transaction.append(row.model_copy(update={"wave": first}))
            self._beginners = self.room // 2 + 1
            begin = range(min(self._beginners, len(entries)))
            started = [_run_row(run + place, first + place, SEED, conditions) for place in begin]
            for row in started:  # the others begin as there is room
                transaction.append(row)
        self._workspace.set_refs({experiment_ref(number): commit for number, commit in enumerate(commits, first)})
        earlier = known_curves(state) if self._task.run.prune else []
        for row, (content, _, _) in zip(started, entries, strict=False):
            with suppress(WorkspaceError):  # it is lost, by its row, and run again
                self._launch(row, content, earlier)
        return [*range(first, first + len(entries))]

    @property
    def has_room(self) -> bool:
        """Whether one more run of the session may be on now. Those that will only wait are not started beside those that begin."""
        running, room = len(self._state.running), self.room
        self._beginners = room // 2 + 1
        return running < self._beginners or (running < room and time.monotonic() - self._launched > SETTLING)

    @property
    def room(self) -> int:
        """How many runs of the session are on at most: as many as there are slots, and as many that wait. Starting one takes a
        second of a core, which is then spent while others run.
        """
        return 2 * max(1, self._executor.capacity(self._task.run))

    def first(self, content: bytes, description: str, hypothesis: str | None) -> RunStarted:
        """Commits the file on top of the best, as a new experiment, and runs it. Raises NotAllowedError, WorkspaceError."""
        state, conditions = self._state, self.comparable_conditions()
        commit = self._workspace.commit_file(state.head_commit, self._task.files.editable, content, description)
        before = self._best
        with self._ledger.transaction() as transaction:
            number = transaction.next_experiment()
            if failed := rules.current(state):  # this experiment is the attempt to mend it
                reason = f"patched further as experiment {number}"
                transaction.append(VerdictGiven(experiment=failed.number, verdict="discard", reason=reason))
                transaction.append(Settled(experiment=failed.number))
            transaction.append(experiment_row(number, state, commit, before, content, description, hypothesis))
            run = _run_row(transaction.next_run(), number, SEED, conditions)
            transaction.append(run)
        self._workspace.set_ref(experiment_ref(number), commit)
        self._launch(run, content, known_curves(state) if self._task.run.prune else [])
        return run

    def get_ready(self) -> None:
        """Has what the next run begins with made ready, whatever its file: where the task names it, no run is on, and the data is
        that of the first run. Cheap once it is.
        """
        if not self._task.run.preload or self._state.running or self.data.missing():
            return
        if (conditions := self.conditions()) == self._first_conditions(conditions):
            self._executor.get_ready(self._spec(run=0, experiment=0, seed=SEED, conditions=conditions), self.pinned)

    def _launch(self, run: RunStarted, content: bytes, earlier: Sequence[Earlier] = ()) -> None:
        if len(self._state.running) <= self._beginners:
            self._launched = time.monotonic()
        spec = self._spec(
            run=run.run,
            token=run.token,
            experiment=run.experiment,
            seed=run.seed,
            conditions=run.conditions,
            earlier=list(earlier),
            place=places.root() / f"{run.run}-{run.token[:8]}",
        )
        try:
            self._executor.start(spec, {**self.pinned, self._task.files.editable: content})
        except WorkspaceError as error:
            reason = f"the run could not be started: {error}"
            self._ledger.append(RunEnded(run=run.run, outcome="crash", failure="lost", seconds=NEVER, excerpt=reason))
            raise

    def _spec(self, run: int, **own: Any) -> RunSpec:
        """Of a run of this session; `own` is what is its own."""
        limits = clock.limits(self._task.run, self._state.baseline_seconds, bool(self._task.data.train))
        return RunSpec(
            run=run,
            tag=self._tag,
            task=self._task.model_copy(update={"run": limits}),
            folder=self._workspace.runs_dir / str(run),
            ledger=self._ledger.path,
            results=self._results.path,
            data=self.data.path if self.data.needed else None,
            enforcement=detect().level,
            **own,
        )


def _run_row(number: int, experiment: int, seed: int, conditions: str, purpose: Purpose = "search") -> RunStarted:
    return RunStarted(
        run=number,
        experiment=experiment,
        seed=seed,
        conditions=conditions,
        purpose=purpose,
        torch=torch_version(),
        token=token_hex(8),
    )
