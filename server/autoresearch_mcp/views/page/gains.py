"""What the night has brought, for the morning view and the card: is the gain real, what is each change worth, how is it taken."""

import time
from typing import Any

from autoresearch_mcp.loop.finalize import gain_of
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.verify import holdout_looks
from autoresearch_mcp.record.events import RunEnded, Verified
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.sections import LEVELS
from autoresearch_mcp.text import format_score, one_line
from autoresearch_mcp.views import build
from autoresearch_mcp.views.figures import gain_in_words, saved_in_words, shown, those_there

Json = dict[str, Any]


def morning(session: Session, sealed: bool) -> Json:
    """What the night has brought: was it gained, is it real, what is each change worth, how does one take it."""
    state, where = session.state, f"--workspace {session.workspace.root} --session {session.tag}"
    ended = [run.ended for experiment in state.experiments for run in experiment.runs if run.ended]
    begun = [run.started_at for experiment in state.experiments[:1] for run in experiment.runs[:1]]
    last = max((experiment.at for experiment in state.experiments[-1:]), default=state.at)
    told: Json = {
        "hours": round((max(last, time.time() if state.running else last) - begun[0]) / 3600, 2) if begun else 0.0,
        "saved": saved_in_words(state),
        "sandbox": weakest(ended),
        "disturbed": sum(bool(run.disturbed) for run in ended),
        "real": real(session, sealed, where),
        "changes": [change(experiment) for experiment in state.kept[1:]],
        "merge": [],
        "done": session.done(),
    }
    if len(state.kept) > 1:
        told["merge"] = [
            {"does": "one commit a kept change on a branch for a pull request, and a report", "command": f"finalize {where}"},
            {"does": "what each change is worth alone, by runs without it", "command": f"ablate {where}"},
            {"does": "the branch as it is", "command": f"git -C {session.workspace.root} merge {state.started.branch}"},
        ]
        for step in told["merge"][:2]:
            step["command"] = f"autoresearch-mcp {step['command']}"
    if sealed:
        first, best = build.mean_holdout(state.baseline), build.mean_holdout(state.best)
        told["holdout"] = {
            "baseline": None if first is None else format_score(first),
            "best": None if best is None else format_score(best),
            "looks": holdout_looks(session),
        }
    return told


def weakest(ended: list[RunEnded]) -> str:
    """The least that held any of the runs that began."""
    levels = {run.enforcement for run in ended if run.seconds.keys() != {"queued"}}
    return min(levels, key=lambda level: LEVELS.index(level) if level in LEVELS else 0, default="")


def real(session: Session, sealed: bool, where: str) -> Json:
    """What fresh runs said of the best. `state`: yes, no, unclear, spoilt, or not asked."""
    state, score = session.state, session.state.best_score or 0.0
    command = f"autoresearch-mcp verify {where}"
    ours = [one for one in state.verified if state.best is not None and one.best == state.best.number]
    if len(state.kept) < 2:
        return {
            "state": "nothing",
            "words": "Nothing but the baseline was kept, so there is no gain to verify.",
            "command": "",
        }
    if not ours:
        words = "Nobody has asked yet: this runs the baseline and the best again, side by side, and counts the new runs alone."
        return {"state": "not asked", "words": words, "command": command}
    last = ours[-1]
    if last.gain is None:
        words = f"{len(last.failed)} of {len(last.runs)} fresh runs gave no score, or the machine was another. It says nothing."
        return {"state": "spoilt", "words": words, "command": command}
    figures = those_there(last.gain, last.gain_low, last.gain_high)
    words = f"{len(last.runs) // 2} fresh runs of each gained {gain_of(figures, score)}."
    if last.disturbed:
        words += f" {len(last.disturbed)} of them were disturbed."
    if len(ours) > 1:
        words += f" It was asked {len(ours)} times; this is the last answer."
    if sealed and last.holdout_gain is not None:
        held = those_there(last.holdout_gain, last.holdout_low, last.holdout_high)
        words += f" On the sealed holdout: {gain_of(held, score)}."
    return {"state": conclusion(last), "words": words, "command": command}


def conclusion(one: Verified) -> str:
    assert one.gain is not None
    low = one.gain if one.gain_low is None else one.gain_low
    high = one.gain if one.gain_high is None else one.gain_high
    return "yes" if low > 0 else "no" if high < 0 else "unclear"


def change(experiment: ExperimentState) -> Json:
    verdict, committed = experiment.verdict, experiment.committed
    gain = shown(verdict.gain, experiment.score or 0.0) if verdict else []
    return {
        "number": experiment.number,
        "description": one_line(committed.description, 300),
        "worth": "shorter, no worse" if verdict and verdict.simpler else gain_in_words(gain),
        "gain": gain,
        "learned": verdict.learned if verdict else None,
        "runs": len(experiment.scores),
        "added": committed.added,
        "removed": committed.removed,
    }
