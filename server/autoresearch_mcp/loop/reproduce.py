"""One experiment run again from its commit, to see whether its score comes again.

With the seed of its first run, unless another is asked for, under the conditions of the session, and held against what its runs
in the loop scored on the same class of hardware. What ran elsewhere, or on another torch, is run all the same and not compared:
the order of additions and the steps made in a budget are others there.
"""

from dataclasses import dataclass

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop.audit import require_sound
from autoresearch_mcp.loop.evidence import earlier, hardware_of, values
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Tell, Wanted, work_off
from autoresearch_mcp.record.events import RunEnded, RunStarted
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate, difference

FRESH = 500  # the first seed of runs that shall not have the night's


@dataclass(frozen=True)
class Reproduction:
    experiment: ExperimentState
    started: RunStarted
    ended: RunEnded
    recorded: RunStarted
    """Its first run that gave a score."""
    hardware: list[str]
    """What its recorded scores ran on."""
    away: Estimate | None = None
    """By how much the new score is better than the recorded ones, positive is better; None where they do not compare."""

    @property
    def torch_differs(self) -> bool:
        return self.recorded.torch != self.started.torch


def run_again(session: Session, number: int, fresh_seed: bool, tell: Tell) -> Reproduction:
    """Raises NotFoundError, NotAllowedError where the experiment has no score or the conditions are others now, LedgerError where
    the record does not hold.
    """
    experiment, state = session.experiment(number), session.state
    require_sound(session)
    recorded = next((run.started for run in experiment.runs if run.counts and run.ended and run.ended.score is not None), None)
    if recorded is None:
        raise NotAllowedError(f"Experiment {number} never gave a score ({experiment.failure}), so there is none to reproduce.")
    seed = FRESH + len(experiment.runs) if fresh_seed else recorded.seed
    wanted = Wanted(number, "reproduce", seed, after=session.ledger.state().last_run)
    (ended,) = work_off(session, [wanted], tell)
    started = next(run.started for run in experiment.runs if run.ended is ended)
    scored = [run.ended for run in experiment.runs if run.counts and run.ended and run.ended.score is not None]
    found = Reproduction(experiment, started, ended, recorded, hardware_of(scored))
    comparable = values(earlier(experiment, ended.hardware))
    if ended.score is None or not comparable or found.torch_differs:
        return found
    away = difference([ended.score], comparable, state.noise_near(experiment, ended.hardware))
    return Reproduction(
        experiment, started, ended, recorded, found.hardware, Estimate(state.sign * away.value, away.error, away.degrees)
    )
