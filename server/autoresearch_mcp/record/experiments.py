"""One experiment and its runs, as far as the ledger has told of them. Pure; the fold over the ledger (state.py) fills them in."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, VerdictGiven

WITH_DATA = frozenset({"training", "export", "evaluation"})  # phases in which a run has seen data
FREE_LOSSES = 1  # losses after that moment, of all runs of a file, that are held against nobody


def failed_looks(runs: Iterable["RunState"]) -> int:
    """How many of these runs, all of one program, saw data and gave no score: they are its result as much as a score is.

    A run that ended before training saw nothing, unless it was refused as not causal, which another try would not mend. One that
    was lost may have been cut off by the machine: FREE_LOSSES of them say nothing, but a loss can be arranged, so no more do. Of a
    lost run whose phases nobody knows it is assumed that it had begun.
    """
    looks = losses = 0
    for run in runs:
        ended = run.ended
        if ended is None or ended.score is not None:
            continue
        saw_data = not WITH_DATA.isdisjoint(ended.seconds)
        if ended.failure == "lost":
            losses += saw_data or not ended.seconds
        else:
            looks += saw_data or ended.failure == "not_causal"
    return looks + max(0, losses - FREE_LOSSES)


@dataclass(slots=True, eq=False)
class RunState:
    started: RunStarted
    started_at: float
    ended: RunEnded | None = None

    @property
    def counts(self) -> bool:
        """In the loop; other runs only examine what it found."""
        return self.started.purpose in ("search", "calibrate")


@dataclass(slots=True, eq=False)
class ExperimentState:
    committed: ExperimentCommitted
    at: float
    runs: list[RunState] = field(default_factory=list[RunState])
    verdict: VerdictGiven | None = None
    settled: bool = False
    scores: list[float] = field(default_factory=list[float])
    """Of its scored runs that count, in the order they ended."""
    score: float | None = None
    """Mean over those; None where there is none."""
    set_aside: int = 0
    """Scored runs that do not count because something disturbed them."""
    version: int = 0
    """Grows with every event of the experiment, for whoever keeps what it has made of it."""

    @property
    def number(self) -> int:
        return self.committed.experiment

    @property
    def running(self) -> RunState | None:
        """Its first run that has not ended; a kept experiment may have one too, a repeat."""
        return next((run for run in self.runs if run.ended is None), None)

    @property
    def last(self) -> RunEnded | None:
        """The result of its latest run in the loop that ended."""
        return next((run.ended for run in reversed(self.runs) if run.ended is not None and run.counts), None)

    @property
    def hardware(self) -> str:
        """What its latest run that counts ran on."""
        return next(
            (run.ended.hardware for run in reversed(self.runs) if run.counts and run.ended and run.ended.score is not None), ""
        )

    @property
    def undecided(self) -> bool:
        """Whether all that it has are runs that were disturbed and do not count."""
        return not self.scores and self.set_aside > 0 and self.last is not None and bool(self.last.disturbed)

    @property
    def kept(self) -> bool:
        return self.verdict is not None and self.verdict.verdict == "keep"

    @property
    def failure(self) -> str:
        """The name of what went wrong in the latest run; `pending` before one ended."""
        last = self.last
        return (last.failure or last.outcome) if last else "pending"

    @property
    def failed_looks(self) -> int:
        """Its runs that saw data and gave no score."""
        return failed_looks(run for run in self.runs if run.counts)

    @property
    def status(self) -> str:
        """keep, discard, running, scored where a verdict is owed, or what else became of it: crash, timeout, refused, pending."""
        if self.verdict and (self.kept or self.score is not None):
            return self.verdict.verdict  # also while the best is repeated
        if self.running:
            return "running"
        if self.score is not None:
            return "scored"
        return self.last.outcome if self.last else "pending"

    @property
    def label(self) -> str:
        """The status, with a failure by its own name."""
        return self.failure if self.score is None and self.status not in ("keep", "running") else self.status
