"""The morning's judgement: is the record the one that was made, is the night's gain real, and does the sealed holdout agree?

Baseline and best are run again, in turns and with the same seeds, under the conditions of the night. Only these fresh runs tell
of the gain: the runs that a best was kept for are its lucky ones, and were few because they agreed. Each of the two has a noise of
its own, to which the baseline's runs of the night add what they know; nobody chose those. Every verification that shows holdout
scores spends the holdout a little, for whoever reads it may choose by it; so they are counted. One that a failed run spoils is on
record as well, and the next one has other seeds: nobody gets rid of a failure by asking again.

The price: twice as many runs as asked for. Three each show a gain of three noise units in two of three cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.audit import Audit, require_sound
from autoresearch_mcp.loop.evidence import Quantity, earlier, excess, hardware_of, holdout, score, values
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Tell, Wanted, attempts, work_off
from autoresearch_mcp.record.events import RunEnded, Verified
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate, Noise, group, unequal

SEED, MOST = 1000, 100  # of the first pair, away from those of the night; the pairs count up, to so many


@dataclass(frozen=True)
class Verification:
    """What came of it, as gains of the best over the baseline: positive is better."""

    audit: Audit
    baseline: ExperimentState
    best: ExperimentState
    gain: Estimate | None = None
    """None where nothing was kept but the baseline, or runs failed."""
    holdout: Estimate | None = None
    overfit: Estimate | None = None
    """How much more was gained on val than on the holdout."""
    runs: list[int] = field(default_factory=list[int])
    looks: int = 0
    """How often anybody was shown holdout scores by a verification, this one included."""
    failed: list[RunEnded] = field(default_factory=list[RunEnded])
    disturbed: list[RunEnded] = field(default_factory=list[RunEnded])
    hardware: list[str] = field(default_factory=list[str])
    claimed: Estimate | None = None
    """What the night claimed when it was asked."""
    simplified: bool = False
    """Whether all that was kept was kept for being shorter."""


def judge_night(session: Session, count: int, tell: Tell) -> Verification:
    """Makes `count` runs each and puts what they say into the ledger. Raises NotFoundError before anything was kept, LedgerError
    where the record does not hold, NotAllowedError where a run is stopped: what ended is kept, and another call goes on.
    """
    state = session.state
    baseline, best = state.baseline, state.best
    if baseline is None or best is None:
        raise NotFoundError("Nothing was kept yet, so there is nothing to verify. Let the loop run first.")
    found = require_sound(session)
    claimed, kept = state.standing.total, state.kept[1:]
    if best is baseline:
        return Verification(found, baseline, best, looks=holdout_looks(session))
    seed = SEED + 100 * len(state.verified)  # others each time, or luck that comes from the seed would come again
    after = max((run for verified in state.verified for run in verified.runs), default=0)

    def pair(number: int) -> list[Wanted]:
        return [Wanted(which.number, "verify", seed + number, after) for which in _in_turns(baseline, best, number)]

    begun = next(number for number in range(count, MOST + 1) if not any(attempts(session, run) for run in pair(number)))
    queue = [wanted for number in range(begun) for wanted in pair(number)]  # who asks for fewer than began gets rid of none
    results = work_off(session, queue, tell)
    told = Verification(
        found,
        baseline,
        best,
        runs=[ended.run for ended in results],
        failed=[ended for ended in results if ended.score is None],
        disturbed=[ended for ended in results if ended.disturbed],
        hardware=[name for name in hardware_of(results) if name],
        claimed=claimed,
        simplified=all(experiment.verdict is not None and experiment.verdict.simpler for experiment in kept),
    )
    if not told.failed and len(hardware_of(results)) == 1:
        told = _compared(session, told, queue, results)
    _record(session, told)
    return replace(told, looks=holdout_looks(session))


def _compared(session: Session, told: Verification, queue: Sequence[Wanted], results: Sequence[RunEnded]) -> Verification:
    numbers, sign = [wanted.experiment for wanted in queue], session.state.sign
    of_best = [ended for ended, number in zip(results, numbers, strict=True) if number == told.best.number]
    of_baseline = [ended for ended, number in zip(results, numbers, strict=True) if number == told.baseline.number]

    def gained(quantity: Quantity) -> Estimate | None:
        one, other = values(of_best, quantity), values(of_baseline, quantity)
        if not one or not other:
            return None
        of_night = group(values(earlier(told.baseline, results[0].hardware), quantity))
        found = unequal(one, other, (Noise(), of_night))
        return Estimate(sign * found.value, found.error, found.degrees)

    return replace(told, gain=gained(score), holdout=gained(holdout), overfit=gained(excess))


def _in_turns(baseline: ExperimentState, best: ExperimentState, number: int) -> Sequence[ExperimentState]:
    """So that a machine that gets better or worse does so for both."""
    return (baseline, best) if number % 2 == 0 else (best, baseline)


def holdout_looks(session: Session) -> int:
    """Of all sessions: they have one holdout."""
    sessions = session.ledger.state().sessions.values()
    return sum(verified.holdout_gain is not None for state in sessions for verified in state.verified)


def _record(session: Session, told: Verification) -> None:
    low, high = told.gain.interval() if told.gain else (None, None)
    sealed_low, sealed_high = told.holdout.interval() if told.holdout else (None, None)
    session.ledger.append(
        Verified(
            session=session.tag,
            baseline=told.baseline.number,
            best=told.best.number,
            runs=told.runs,
            failed=[ended.run for ended in told.failed],
            disturbed=[ended.run for ended in told.disturbed],
            gain=told.gain.value if told.gain else None,
            gain_low=low,
            gain_high=high,
            holdout_gain=told.holdout.value if told.holdout else None,
            holdout_low=sealed_low,
            holdout_high=sealed_high,
        )
    )
