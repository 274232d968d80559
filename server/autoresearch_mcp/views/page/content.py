"""What the page shows of a line of research, as JSON. For people: of the holdout only where they asked for it.

Everything that an agent or a run wrote is a value here, with nothing in it that is not seen; the page puts values into text nodes
alone. What a whole night costs is paid once: rows are kept by the version of their experiment.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from math import hypot, isfinite
from typing import Any

from autoresearch_mcp.loop import batch, limits
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState, RunState
from autoresearch_mcp.record.noise import Estimate
from autoresearch_mcp.record.state import LedgerState, SessionState
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.text import format_score, one_line, shown_difference, shown_score, tail, visible, visible_json
from autoresearch_mcp.views import build, references
from autoresearch_mcp.views.figures import (
    best_in_words,
    checks_in_words,
    gain_in_words,
    limits_in_words,
    noise_in_words,
    reach,
    saved_in_words,
    shown,
    shown_gain,
)
from autoresearch_mcp.views.page.gains import Json, morning
from autoresearch_mcp.views.printed import Point, Printed, printed, recorded

FIELDS = ("number", "session", "status", "score", "reach", "runs", "gain", "seconds", "at", "known", "holdout", "description")
"""Of a row: `known` is what a kept one scores as far as is known, by which the line of the best is drawn; `holdout` what it scores
on what is sealed, where a human asked."""
THEMES, LESSONS, SESSIONS = 40, 12, 200  # that are told of
LOG, LOG_LINES, LIVE_LINES = 40_000, 600, 40  # characters and lines of a log, and lines of the one that is on
CURVE = 400  # points sent of a curve

Row = list[Any]


class Rows:
    """One row an experiment, made again when something happened to it."""

    def __init__(self, sealed: bool = False) -> None:
        self._sealed = sealed
        self._made: dict[int, tuple[int, Row]] = {}

    def of(self, states: Iterable[SessionState]) -> dict[int, tuple[int, Row]]:
        """By number, with the version of each."""
        found: dict[int, tuple[int, Row]] = {}
        for state in states:
            for experiment in state.experiments:
                made = self._made.get(experiment.number)
                if made is None or made[0] != experiment.version or experiment is state.best:
                    made = (experiment.version, row(state, experiment, self._sealed))
                    self._made[experiment.number] = made
                found[experiment.number] = made
        return dict(sorted(found.items()))


def row(state: SessionState, experiment: ExperimentState, sealed: bool = False) -> Row:
    """In the order of FIELDS."""
    score, last = experiment.score, experiment.last
    known = state.estimates.get(experiment.number) if experiment.kept else None
    return [
        experiment.number,
        experiment.committed.session,
        visible(one_line(experiment.label, 40)),
        None if score is None else shown_score(score),
        shown_difference(reach(state, experiment), score or 0.0) or None,
        len(experiment.scores),
        shown(experiment.verdict.gain, score or 0.0) if experiment.verdict else [],
        round(sum(last.seconds.values()), 1) if last else None,
        round(experiment.at, 1),
        None if known is None else shown_score(known),
        build.mean_holdout(experiment) if sealed and experiment.kept else None,
        visible(one_line(experiment.committed.description, 500)),
    ]


def sessions(ledger: LedgerState) -> list[Json]:
    """All lines of research, the latest first."""
    return [
        {
            "tag": tag,
            "metric": state.started.metric,
            "experiments": len(state.experiments),
            "kept": len(state.kept),
            "best": best_in_words(state),
            "gain": gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0)),
            "running": len(state.running),
            "at": max((experiment.at for experiment in state.experiments[-1:]), default=state.at),
        }
        for tag, state in sorted(ledger.sessions.items(), key=lambda item: -item[1].at)[:SESSIONS]
        if state.started.examines is None
    ]


def shown_states(session: Session, everyone: bool) -> list[SessionState]:
    return list(batch.comparable(session).values()) if everyone else [session.state]


def head(session: Session, everyone: bool = False, sealed: bool = False) -> Json:
    """Everything but the rows and what is on now. With `everyone` the counts are those of all sessions, the rest of this one."""
    return head_without_morning(session, everyone) | visible_json({"morning": morning(session, sealed), "sealed": sealed})


def head_without_morning(session: Session, everyone: bool = False) -> Json:
    """The same without what the human's own commands have found out."""
    state, task, states = session.state, session.task, shown_states(session, everyone)
    content = {
        "session": session.tag,
        "everyone": everyone,
        "task": task.name,
        "goal": task.goal,
        "file": task.files.editable,
        "metric": task.metric.name,
        "unit": task.metric.unit,
        "direction": task.metric.direction,
        "budget": task.run.budget_seconds if task.run.command else None,
        "preset": task.preset,
        "sessions": sessions(session.ledger.state()),
        "experiments": sum(len(one.experiments) for one in states),
        "kept": sum(len(one.kept) for one in states),
        "runs": sum(limits.runs(one) for one in states),
        "counts": dict(sum((Counter(one.counts) for one in states), Counter[str]())),
        "baseline_number": state.baseline.number if state.baseline else None,
        "baseline": None if state.baseline_score is None else format_score(state.baseline_score),
        "best_number": state.best.number if state.best else None,
        "best_description": one_line(state.best.committed.description, 200) if state.best else None,
        "best": best_in_words(state),
        "gain": gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0)),
        "noise": noise(state),
        "places": [theme.model_dump() for theme in build.themes(state, THEMES)],
        "lessons": [{"number": number, "text": text} for text, number in reversed(state.lessons.items())][:LESSONS],
        "machines": machines(session),
        "sealed": False,
    }
    return visible_json(content)


def noise(state: SessionState) -> Json:
    """How much a score is luck, and what that means for whoever looks at the chart. `interval`: half of the best's; `luck`: how far
    from it 19 of 20 further runs of the best would fall, with what is not known of it and of the noise.
    """
    found, score, known = state.standing.noise, state.best_score, state.standing.score
    deviation = found.deviation
    told: Json = {"words": noise_in_words(state), "deviation": deviation, "interval": None, "luck": None, "means": ""}
    if deviation is None or score is None or known is None:
        told["means"] = "Nothing has been repeated yet, so nobody knows how much of a score is luck."
        return told
    if deviation == 0:
        told["means"] = "Repeated runs gave the very same score: any difference is one."
        return told

    def half(error: float) -> float | None:
        width = Estimate(0.0, error, found.degrees).interval()[1]
        return shown_difference(width, score) if isfinite(width) else None

    told |= {"deviation": shown_difference(deviation, score)}
    told |= {"interval": half(known.error) if known.error else None, "luck": half(hypot(deviation, known.error))}
    two = format_score(half(2**0.5 * deviation) or 0.0)
    told["means"] = (
        f"Two runs of the very same file may differ by {two} through luck alone (95 %). "
        "What looks better by less than that in a single run is not known to be; that is why promising files are run again before "
        "they are kept."
    )
    return told


def machines(session: Session) -> Json:
    """Where runs took place, and what this machine has room for."""
    of: dict[tuple[str, str, str], list[int]] = {}
    for experiment in session.state.experiments:
        for run in experiment.runs:
            if run.ended is not None:
                ended = run.ended
                counts = of.setdefault((ended.hardware or "not recorded", ended.machine, ended.enforcement), [0, 0])
                counts[0] += 1
                counts[1] += bool(ended.disturbed)
    return {
        "runs": [
            {"hardware": hardware, "machine": machine[:8], "sandbox": level, "runs": runs, "disturbed": disturbed}
            for (hardware, machine, level), (runs, disturbed) in of.items()
        ],
        "told": [f"Hopeless runs: {saved}"] if (saved := saved_in_words(session.state)) else [],
    }


# --- what is on -------------------------------------------------------------------------------------------------------


class Now:
    """The runs that are on, of which the first is followed closely: its clock, its curve, the end of its output."""

    def __init__(self) -> None:
        self._curves: dict[str, Printed] = {}

    def of(self, session: Session, among: Iterable[Session]) -> Json:
        """`among`: the sessions whose runs are told of. Cheap: of a log only what is new is read."""
        running = [(one, experiment, run) for one in among for experiment, run in one.state.running]
        runs = [self._run(*of) for of in running]
        slots = [asdict(use) for use in session.executor.in_use()]
        content: Json = {"runs": runs, "slots": slots, "curve": [], "best_curve": [], "log": ""}
        if running:
            followed, experiment, _ = running[0]
            best = followed.state.best
            content["curve"] = thinned(self._curve(followed, experiment))
            content["best_curve"] = thinned(self._curve(followed, best)) if best not in (None, experiment) else []
            path = references.log_path(followed, experiment)
            content["log"] = tail(path, LOG, LIVE_LINES) if path else ""
        return visible_json(content)

    def _run(self, session: Session, experiment: ExperimentState, run: RunState) -> Json:
        spec = session.spec(run.started.run)
        at = session.executor.progress(spec) if spec else Progress()
        return {
            "number": experiment.number,
            "description": one_line(experiment.committed.description, 200),
            "run": run.started.run,
            "purpose": run.started.purpose,
            "repeat": len(experiment.runs),
            "phase": at.phase,
            "elapsed": round(at.elapsed, 1),
            "limit": at.limit,
            "budget": at.budget,
            "note": at.note,
            "slot": at.slot,
            "session": session.tag,
        }

    def _curve(self, session: Session, experiment: ExperimentState | None) -> list[Point]:
        if experiment is None or not experiment.runs:
            return []
        path = str(references.log_path(session, experiment))
        if path not in self._curves:
            read = printed(session, experiment)
            if read is None:
                return []
            if len(self._curves) > 8:  # of runs that are over
                self._curves.clear()
            self._curves[path] = read
        return self._curves[path].look()


def thinned(points: list[Point]) -> list[Point]:
    step = max(1, -(-len(points) // CURVE))
    return [*points[:-1:step], points[-1]] if points else []


# --- one experiment ---------------------------------------------------------------------------------------------------


def experiment(session: Session, number: int, sealed: bool = False) -> Json:
    """All there is to say of one. Raises NotFoundError."""
    found, state, task = session.experiment(number), session.state, session.task
    committed, verdict = found.committed, found.verdict
    near = state.standing_on(found.hardware).gain(number) if found.score is not None and verdict is None else None
    ours, best = curves(session, found, state.best if state.best is not found else None)
    path = references.log_path(session, found)
    content = {
        "number": number,
        "session": session.tag,
        "metric": task.metric.name,
        "description": committed.description,
        "hypothesis": committed.hypothesis,
        "learned": verdict.learned if verdict else None,
        "reason": verdict.reason if verdict else "",
        "status": found.label,
        "score": None if found.score is None else format_score(found.score),
        "gain": gain_in_words(shown(verdict.gain, found.score or 0.0) if verdict else shown_gain(near, found.score or 0.0)),
        "simpler": bool(verdict and verdict.simpler),
        "commit": committed.commit,
        "parent": committed.parent,
        "at": found.at,
        "added": committed.added,
        "removed": committed.removed,
        "places": committed.places,
        "similar": state.descriptions.similar(number),
        "wave": committed.wave,
        "checks": checks_in_words(found),
        "limits": limits_in_words(task, found),
        "runs": [run_of(run, sealed) for run in found.runs],
        "curve": thinned(ours),
        "best_curve": thinned(best),
        "best_number": state.best.number if state.best else None,
        "diff": references.diff(session, number),
        "excerpt": found.last.excerpt if found.last else "",
        "log": tail(path, LOG, LOG_LINES) if path else "",
    }
    return visible_json(content)


def curves(session: Session, one: ExperimentState, other: ExperimentState | None) -> tuple[list[Point], list[Point]]:
    """Of two experiments on the same scale: as printed where both logs are there, else as recorded."""
    pair = [experiment for experiment in (one, other) if experiment is not None]
    read = [printed(session, experiment) for experiment in pair]
    found = [curve.look() if curve else [] for curve in read]
    if not all(found) and all(recorded(experiment) for experiment in pair):
        found = [recorded(experiment) for experiment in pair]
    return found[0], found[1] if other is not None else []


def run_of(run: RunState, sealed: bool) -> Json:
    started, ended = run.started, run.ended
    told: Json = {"run": started.run, "seed": started.seed, "purpose": started.purpose, "at": run.started_at}
    if ended is None:
        return told | {"outcome": "running"}
    told |= {
        "outcome": ended.failure or ended.outcome,
        "score": None if ended.score is None else format_score(ended.score),
        "seconds": {phase: round(seconds, 1) for phase, seconds in ended.seconds.items()},
        "memory": ended.peak_memory_mb if ended.peak_vram_mb is None else ended.peak_vram_mb,
        "sandbox": ended.enforcement,
        "hardware": ended.hardware,
        "disturbed": ended.disturbed,
        "marks": ended.marks,
        "details": {name: shown_score(value) for name, value in ended.details.items()},
        "saved": ended.saved,
    }
    if sealed and ended.holdout is not None:
        told["holdout"] = format_score(ended.holdout)
    return told
