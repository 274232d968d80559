"""The morning's judgement: is the record the one that was made, is the night's gain real, and does the sealed holdout agree?

Baseline and best are run again, in turns and with the same seeds, under the conditions of the night. Only these fresh runs tell
of the gain: the runs that a best was kept for are its lucky ones. What the night knows of the noise is used, what it knows of
the level is not. Every verification that shows holdout scores spends the holdout a little, for whoever reads it may choose by
it; so they are counted.

The price: twice as many runs as asked for. Three each show a gain of two noise units in two of three cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoresearch_mcp.errors import LedgerError, NotFoundError
from autoresearch_mcp.loop.audit import Audit, audit
from autoresearch_mcp.loop.evidence import Quantity, earlier, excess, hardware_of, holdout, noise, score, values
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Tell, Wanted, work_off
from autoresearch_mcp.record.events import RunEnded, Verified
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate, difference

SEED = 1000  # of the first pair, away from those of the night; the pairs count up


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
    hardware: list[str] = field(default_factory=list[str])


def judge_night(session: Session, count: int, tell: Tell) -> Verification:
    """Makes `count` runs each and puts what they say into the ledger. Raises NotFoundError before anything was kept, LedgerError
    where the record does not hold, NotAllowedError where a run is stopped: what ended is kept, and another call goes on.
    """
    state = session.state
    baseline, best = state.baseline, state.best
    if baseline is None or best is None:
        raise NotFoundError("Nothing was kept yet, so there is nothing to verify. Let the loop run first.")
    found = audit(session)
    if found.faults:
        raise LedgerError("The record does not hold, so nothing is concluded from it.\n" + "\n".join(found.faults))
    if best is baseline:
        return Verification(found, baseline, best, looks=_looks(session))
    seed = SEED + 100 * len(state.verified)  # others each time, or luck that comes from the seed would come again
    after = max((run for verified in state.verified for run in verified.runs), default=0)
    pairs = [
        [Wanted(experiment.number, "verify", seed + number, after) for experiment in _in_turns(baseline, best, number)]
        for number in range(count)
    ]
    results = work_off(session, [wanted for pair in pairs for wanted in pair], tell)
    failed, hardware = [ended for ended in results if ended.score is None], hardware_of(results)
    runs = [ended.run for ended in results]
    if failed or len(hardware) > 1:
        return Verification(found, baseline, best, runs=runs, looks=_looks(session), failed=failed, hardware=hardware)
    experiments = [wanted.experiment for pair in pairs for wanted in pair]
    of_best = [ended for ended, number in zip(results, experiments, strict=True) if number == best.number]
    of_baseline = [ended for ended, number in zip(results, experiments, strict=True) if number == baseline.number]

    def gained(quantity: Quantity) -> Estimate | None:
        one, other = values(of_best, quantity), values(of_baseline, quantity)
        if not one or not other:
            return None
        known = noise(values(earlier(experiment, hardware[0]), quantity) for experiment in (baseline, best))
        found = difference(one, other, known)
        return Estimate(state.sign * found.value, found.error, found.degrees)

    gain, sealed = gained(score), gained(holdout)
    assert gain is not None, "no run has failed"
    _record(session, baseline, best, runs, gain, sealed)
    return Verification(
        found, baseline, best, gain, sealed, gained(excess), runs, _looks(session), hardware=[name for name in hardware if name]
    )


def _in_turns(baseline: ExperimentState, best: ExperimentState, number: int) -> Sequence[ExperimentState]:
    """So that a machine that gets better or worse does so for both."""
    return (baseline, best) if number % 2 == 0 else (best, baseline)


def _looks(session: Session) -> int:
    return sum(verified.holdout_gain is not None for verified in session.state.verified)


def _record(
    session: Session, baseline: ExperimentState, best: ExperimentState, runs: list[int], gain: Estimate, sealed: Estimate | None
) -> None:
    low, high = gain.interval()
    sealed_low, sealed_high = sealed.interval() if sealed else (None, None)
    session.ledger.append(
        Verified(
            session=session.tag,
            baseline=baseline.number,
            best=best.number,
            runs=runs,
            gain=gain.value,
            gain_low=low,
            gain_high=high,
            holdout_gain=sealed.value if sealed else None,
            holdout_low=sealed_low,
            holdout_high=sealed_high,
        )
    )
