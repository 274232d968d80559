"""Finishes what a death left half done: a verdict that git does not know yet, a missing branch, worktree or ref, a lost run.

Every step begins with `finish`, under the session's lock. It costs two short git commands where nothing is wrong.
"""

from itertools import takewhile

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.executors import Executor
from autoresearch_mcp.loop.worktree import Worktree
from autoresearch_mcp.record.events import RunEnded, Settled
from autoresearch_mcp.record.experiments import RunState
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.workspace import Workspace, experiment_ref


class Recovery:
    def __init__(self, workspace: Workspace, ledger: Ledger, tag: str, worktree: Worktree, executor: Executor, results: Results):
        self._workspace, self._ledger, self._tag = workspace, ledger, tag
        self._worktree, self._executor, self._results = worktree, executor, results

    @property
    def _state(self) -> SessionState:
        return self._ledger.state().sessions[self._tag]

    def finish(self) -> None:
        """Everything that the next step relies on. Raises WorkspaceError where somebody else has moved the branch."""
        self._workspace.worktree(self._tag, self._branch())
        if self._state.unsettled:
            self.settle()
            self._branch()
        self.collect()
        self._restore_latest_ref()

    def settle(self) -> str:
        """Finishes the git side of verdicts whose row is written: moves the branch, puts the best's file in place.

        Returns a note on what was in the way, else an empty one.
        """
        notes, file = list[str](), self._state.started.file
        for experiment in list(self._state.unsettled):
            if experiment.kept:
                self._workspace.move_branch(self._state.started.branch, experiment.committed.commit, self._worktree.root)
            if not experiment.kept or experiment.committed.wave or self._worktree.read() is None:
                notes.append(self._worktree.write(self._workspace.blob(self._state.head_commit, file)))
            self._ledger.append(Settled(experiment=experiment.number))
        return "; ".join(note for note in notes if note)

    def restore_refs(self) -> list[int]:
        """Makes all refs that are missing, so that every experiment stays reachable; returns the experiments whose commit is gone.

        A death costs at most the latest ref, or those of the latest wave, which the next step makes. What something else removed is
        found here, which takes seconds in a session of many thousands: only the server's spare time and `doctor` call it.
        """
        return self._workspace.restore_refs({e.number: e.committed.commit for e in list(self._state.experiments)})

    def catch_up(self) -> None:
        """What would make the first steps in a long session slow, done before anybody asks; results.tsv is brought up to date."""
        self._state.descriptions.index()
        self._results.restore()

    def lost(self) -> list[RunState]:
        """The runs that are on by the ledger, and nobody supervises."""
        return [run for _, run in self._state.running if not self._is_alive(run)]

    def collect(self) -> None:
        """Records what such runs left: the result that their host could not record, or else their loss."""
        lost = self.lost()
        for run in lost:
            result = self._left_by(run)
            with self._ledger.transaction() as transaction:
                if transaction.state.runs[run.started.run].ended is None:
                    transaction.append(result)
        if lost:
            self._results.write()

    def _left_by(self, run: RunState) -> RunEnded:
        spec, result = self.spec(run.started.run), None
        if spec is not None:
            self._executor.clean_up(spec)
            result = self._executor.collect(spec)
        reason = "the run's supervisor died before it recorded a result (killed, or the machine went down)"
        enforcement = spec.enforcement if spec else "none"
        return result or RunEnded(run=run.started.run, outcome="crash", failure="lost", enforcement=enforcement, excerpt=reason)

    def _is_alive(self, run: RunState) -> bool:
        spec = self.spec(run.started.run)
        return spec is not None and self._executor.is_alive(spec)

    def spec(self, run: int) -> RunSpec | None:
        """What was told to the host of a run; None where its folder is gone or of another version."""
        return RunSpec.read(self._workspace.runs_dir / str(run))

    def _branch(self) -> str:
        """The session's branch, put where it belongs; not where a verdict is about to move it, nor where somebody else has."""
        started, state = self._state.started, self._state
        here = self._workspace.ref(f"refs/heads/{started.branch}")
        if here == state.head_commit or (here is not None and state.unsettled):
            return started.branch
        known = (None, started.base_commit)
        if here not in known and all(experiment.committed.commit != here for experiment in state.experiments):
            raise WorkspaceError(
                f"The branch {started.branch} stands at {str(here)[:7]}, which this session did not make. Start another session "
                f"with --session NAME, or put it back: git update-ref refs/heads/{started.branch} {state.head_commit[:7]}"
            )
        self._workspace.set_ref(f"refs/heads/{started.branch}", state.head_commit)
        return started.branch

    def _restore_latest_ref(self) -> None:
        experiments = self._state.experiments
        if experiments and self._workspace.ref(experiment_ref(experiments[-1].number)) is None:
            first = experiments[-1].committed.wave or experiments[-1].number
            latest = takewhile(lambda experiment: experiment.number >= first, reversed(experiments))
            self._workspace.set_refs({experiment_ref(one.number): one.committed.commit for one in latest})
