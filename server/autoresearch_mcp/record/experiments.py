"""One experiment and its runs, as far as the ledger has told of them. Pure; the fold over the ledger (state.py) fills them in."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, VerdictGiven
from autoresearch_mcp.record.noise import mean

WITH_DATA = frozenset({"training", "export", "evaluation"})  # phases in which a run has seen data
FREE_LOSSES = 1  # losses after that moment, of all runs of a file, that are held against nobody
FREE_ENDS = 2  # ends before data of a file that gave a score before; those after them are its result, or it would run for ever


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
        return self.started.purpose in ("search", "replicate", "calibrate")

    @property
    def of_human(self) -> bool:
        """Whether a human's command made it, and no step of the loop."""
        return self.started.purpose not in ("search", "replicate")


@dataclass(slots=True, eq=False)
class ExperimentState:
    committed: ExperimentCommitted
    at: float
    runs: list[RunState] = field(default_factory=list[RunState])
    verdict: VerdictGiven | None = None
    settled: bool = False
    hardware: str = ""
    """What its latest run that counts ran on."""
    by_hardware: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Scores of its runs that count, in the order they ended: those of two classes have no mean."""
    score: float | None = None
    """Mean over `scores`; None where there is none."""
    set_aside: int = 0
    """Scored runs since the last one that counts, which do not because something disturbed them."""
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
    def scores(self) -> list[float]:
        """Of its runs that count on the hardware of the latest."""
        return self.by_hardware.get(self.hardware, [])

    @property
    def undecided(self) -> bool:
        """Whether all that it has are runs that were disturbed and do not count."""
        return not self.by_hardware and self.set_aside > 0 and not self.failed_looks

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
        """Its runs that saw data and gave no score; of what was kept, but for those that were stopped."""
        return self.broken if self.kept else self._failed([run for run in self.runs if run.counts])

    @property
    def broken(self) -> int:
        """The same but for those that were stopped on request. Of a file that everything is measured against they say nothing: or
        who stops its repeats would choose by what it is measured.
        """
        return self._failed([run for run in self.runs if run.counts and not (run.ended and run.ended.stopped)])

    def broken_on(self, hardware: str) -> int:
        """The same on one class of hardware."""
        runs = [run for run in self.runs if run.counts and run.ended and run.ended.hardware == hardware and not run.ended.stopped]
        return failed_looks(runs)

    def _failed(self, runs: list[RunState]) -> int:
        looks = failed_looks(runs)
        if not self.by_hardware and not self.set_aside:
            return looks
        failed = sum(run.ended is not None and run.ended.score is None for run in runs)
        return max(looks, failed - FREE_ENDS)

    def count(self, score: float, hardware: str) -> None:
        """Takes in a score that is evidence."""
        self.by_hardware.setdefault(hardware, []).append(score)
        self.hardware, self.set_aside = hardware, 0
        self.score = mean(self.scores)

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
