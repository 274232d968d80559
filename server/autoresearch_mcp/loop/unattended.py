"""A queue of runs that nobody waits beside, worked off one after another: what verify, reproduce and calibrate are made of.

What a queue wants is looked up in the ledger first, so a call that follows an interruption (Ctrl-C, a kill, a machine that went
down) goes on where the last one stood, and waits for a run that outlived it. Each run takes its slot in turn with all others, and
the session's lock only to be recorded and launched: an agent may work in the session meanwhile.

What counts as a result is fixed before any is known. A run that was disturbed is run again, DISTURBED times at most, then counts
with its mark. One that was lost or failed before it saw data is tried TRIES times. One that saw data and failed has that as its
result, as in the loop: whoever runs again what failed draws until luck comes. What ran on another class of hardware than the
latest run is run again there, MOVES times at most: else the queue of a machine that changed would never compare.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.files import locked
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import Purpose, RunEnded
from autoresearch_mcp.record.experiments import ExperimentState, RunState, failed_looks
from autoresearch_mcp.run.progress import Progress

TRIES, DISTURBED, MOVES = 2, 2, 2
POLL = 0.2  # seconds between looks at a run that is on
PATIENCE = 60.0  # seconds for a run that was asked to end


@dataclass(frozen=True)
class Wanted:
    """One run of a queue."""

    experiment: int
    purpose: Purpose
    seed: int
    after: int = 0
    """Only runs with higher numbers will do."""


@dataclass(frozen=True)
class Moment:
    """Where a queue stands, for whoever watches."""

    done: int
    total: int
    wanted: Wanted
    progress: Progress = field(default_factory=Progress)
    ended: RunEnded | None = None
    """The run's result, once, when it ends."""


Tell = Callable[[Moment], None]


def work_off(session: Session, queue: Sequence[Wanted], tell: Tell) -> list[RunEnded]:
    """The results of all runs in the queue, in its order. Raises NotAllowedError where a run is stopped; what ended stays."""
    results: list[RunEnded] = []
    hardware: str | None = None
    with locked(session.workspace.state_dir / f"queue-{session.tag}.lock", "work off a queue of runs", timeout=1):
        session.refresh()
        for _ in range(MOVES + 1):
            results = []
            for wanted in queue:
                while (result := _result(attempts(session, wanted), hardware)) is None:
                    _run(session, Moment(len(results), len(queue), wanted), tell)
                results.append(result)
            hardware = max(results, key=lambda ended: ended.run).hardware if results else None
            if all(ended.hardware == hardware for ended in results):
                break
    return results


def attempts(session: Session, wanted: Wanted) -> list[RunState]:
    """The runs that were made for one place in a queue, under the conditions there are now."""
    conditions = session.runs.conditions()
    return [
        run
        for run in session.experiment(wanted.experiment).runs
        if (run.started.purpose, run.started.seed, run.started.conditions) == (wanted.purpose, wanted.seed, conditions)
        and run.started.run > wanted.after
    ]


def _result(runs: Sequence[RunState], hardware: str | None) -> RunEnded | None:
    """What these attempts at one run come to, on that hardware if it is known which; None where one more is due."""
    ends = [run for run in runs if run.ended is not None and not run.ended.stopped]
    there = [run for run in ends if run.ended is not None and run.ended.hardware == hardware]
    if hardware is not None and ends and not there and len({run.ended.hardware for run in ends if run.ended}) <= MOVES:
        return None
    ends = there or ends
    scored = [run.ended for run in ends if run.ended is not None and run.ended.score is not None]
    failed = [run for run in ends if run.ended is not None and run.ended.score is None]
    undisturbed = next((ended for ended in scored if not ended.disturbed), None)
    if undisturbed is not None:
        return undisturbed
    if len(scored) > DISTURBED:
        return scored[-1]
    if failed and (failed_looks(failed) or len(failed) >= TRIES):
        return failed[-1].ended
    return None


def _run(session: Session, at: Moment, tell: Tell) -> None:
    """One attempt to its end: the one that is on already, or a new one."""
    wanted = at.wanted
    experiment = session.experiment(wanted.experiment)
    on = next((run.started for run in attempts(session, wanted) if run.ended is None), None)
    started = on or session.start_run(experiment, wanted.purpose, wanted.seed)
    try:
        while (ended := _ended(experiment, started.run)) is None:
            spec = session.spec(started.run)
            tell(replace(at, progress=session.executor.progress(spec) if spec else Progress()))
            time.sleep(POLL)
            session.refresh()
    except KeyboardInterrupt:
        _stop(session, experiment, started.run)
        raise
    tell(replace(at, ended=ended))
    if ended.stopped:
        raise NotAllowedError(f"Run {started.run} was stopped. What ended before it is kept: call again to go on.")


def _ended(experiment: ExperimentState, run: int) -> RunEnded | None:
    return next((state.ended for state in experiment.runs if state.started.run == run), None)


def _stop(session: Session, experiment: ExperimentState, run: int) -> None:
    """Ends the run with whoever wanted it: nothing goes on in the background that nobody knows of."""
    if (spec := session.spec(run)) is not None:
        session.executor.stop(spec)
    deadline = time.monotonic() + PATIENCE
    while _ended(experiment, run) is None and time.monotonic() < deadline:
        time.sleep(POLL)
        session.refresh()
