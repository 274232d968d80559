"""What people read in the morning, in plain words. For them alone: it tells of the holdout."""

from typing import Any

from autoresearch_mcp.loop.ablate import Left
from autoresearch_mcp.loop.reproduce import Reproduction
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.loop.verify import Verification
from autoresearch_mcp.record.noise import Estimate
from autoresearch_mcp.text import format_score, one_line
from autoresearch_mcp.views.figures import gain_in_words, shown_gain


def moment(at: Moment) -> str:
    """Where a queue of runs stands, on one line."""
    wanted, progress = at.wanted, at.progress
    where = f"run {at.done + 1} of {at.total}, experiment {wanted.experiment}, seed {wanted.seed}"
    if at.ended is None:
        return f"{where}: {progress.phase}, {progress.elapsed:.0f} s"
    told = at.ended.failure if at.ended.score is None else format_score(at.ended.score)
    return f"{where}: {told}" + (f" (disturbed: {at.ended.disturbed})" if at.ended.disturbed else "")


def verified(session: Session, found: Verification) -> str:
    """What a verification says."""
    metric, state = session.task.metric.name, session.state
    events, files = found.audit.events, found.audit.experiments
    lines = [f"Record: {events} rows of the ledger and the files of {files} experiments are what they were."]
    if found.best is found.baseline:
        return "\n".join([*lines, "Nothing was kept but the baseline: the night claims no gain, and there is none to verify."])
    pair = f"experiment {found.best.number} over the baseline, experiment {found.baseline.number}"
    if found.failed:
        named = ", ".join(f"run {ended.run} ({ended.failure})" for ended in found.failed)
        return "\n".join([*lines, f"Not verified, {pair}: {named} gave no score. `log` shows why."])
    if found.gain is None:
        return "\n".join([*lines, f"Not verified, {pair}: the runs were on different hardware ({'; '.join(found.hardware)})."])
    each, scale = len(found.runs) // 2, state.best_score or 0.0
    lines.append(
        f"Gain in {metric}, {pair}: {_said(found.gain, scale)}, from {each} fresh runs each"
        + (f" on {found.hardware[0]}" if found.hardware else "")
        + "."
    )
    lines.append(_verdict(found.gain))
    if claimed := state.standing.total:
        lines.append(f"The night claims {gain_in_words(shown_gain(claimed, scale))}.")
    if found.holdout is not None and found.overfit is not None:
        lines.append(f"On the sealed holdout: {_said(found.holdout, scale)}. {_holds(found.holdout)}")
        lines.append(
            f"More on val than there, which is overfitting to val: {_said(found.overfit, scale)}. {_overfit(found.overfit)}"
        )
        lines.append(
            f"The holdout was looked at {found.looks} time{'s' if found.looks != 1 else ''}; each choice by it wears it out."
        )
    return "\n".join(lines)


def as_json(session: Session, found: Verification) -> dict[str, Any]:
    def figures(estimate: Estimate | None) -> list[float] | None:
        return estimate.figures if estimate else None

    return {
        "events": found.audit.events,
        "baseline": found.baseline.number,
        "best": found.best.number,
        "runs": found.runs,
        "failed": {ended.run: ended.failure for ended in found.failed},
        "hardware": found.hardware,
        "gain": figures(found.gain),
        "holdout_gain": figures(found.holdout),
        "overfit": figures(found.overfit),
        "holdout_looks": found.looks,
        "text": verified(session, found),
    }


def _said(gain: Estimate, scale: float) -> str:
    return gain_in_words(shown_gain(gain, scale))


def _verdict(gain: Estimate) -> str:
    low, high = gain.interval()
    if low > 0:
        return "The gain is real: its whole 95 % interval is better than nothing."
    if high < 0:
        return "The best is worse than the baseline: what was kept was luck."
    return "The gain is not shown: luck alone could make it. More runs (--runs) may tell."


def _holds(gain: Estimate) -> str:
    low, high = gain.interval()
    return "It holds there too." if low > 0 else "It is a loss there." if high < 0 else "It is not shown there."


def _overfit(extra: Estimate) -> str:
    low, _ = extra.interval()
    return "Some of the gain is." if low > 0 else "None is shown."


def reproduced(session: Session, found: Reproduction) -> str:
    """What running an experiment again says."""
    experiment, ended, metric = found.experiment, found.ended, session.task.metric.name
    number, recorded = experiment.number, experiment.score or 0.0
    was = f"experiment {number}, recorded with {format_score(recorded)} in {len(experiment.scores)} run(s)"
    if ended.score is None:
        return f"Not reproduced: {was}, now ended without a score ({ended.failure}). `log {number}` shows why."
    now = f"{metric} {format_score(ended.score)} with seed {found.started.seed}; {was}"
    if found.torch_differs:
        versions = f"{found.started.torch or 'none'} now, {found.recorded.torch or 'not recorded'} then"
        return f"{now}.\nNot compared: torch is another ({versions}). That it runs and is scored does reproduce."
    if found.away is None:
        then = "; ".join(name or "not recorded" for name in found.hardware)
        return (
            f"{now}.\nNot compared: it ran on {ended.hardware or 'hardware not recorded'} now and on {then} then, where speed and "
            "order of additions are others. That it runs and is scored does reproduce."
        )
    if ended.score in experiment.scores:
        return f"{now}.\nReproduced to the last digit."
    low, high = found.away.interval()
    if not found.away.error or low > 0 or high < 0:
        return f"{now}.\nNot reproduced: away by {_said(found.away, recorded)}, which is more than the noise."
    return f"{now}.\nReproduced within the noise: {_said(found.away, recorded)}."


def ablated(session: Session, left: list[Left]) -> str:
    """What each change is worth, as a table."""
    scale = session.state.best_score or 0.0
    rows = [("experiment", "worth ± 95 %", "", "change")]
    for one in left:
        worth = _said(one.worth, scale) if one.worth else "not known"
        rows.append((str(one.change.number), worth, _stays(one), one_line(one.change.committed.description, 80)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])) for row in rows]
    removable = [str(one.change.number) for one in left if one.worth and one.worth.interval()[0] <= 0]
    if removable:
        lines.append(
            f"To leave one out: autoresearch-mcp finalize --drop {removable[0]}. Each was left out alone: run ablate again after."
        )
    return "\n".join(lines)


def _stays(one: Left) -> str:
    if one.worth is None:
        return one.reason
    low, high = one.worth.interval()
    return "stays" if low > 0 else "hurts" if high < 0 else "can go: not shown to help"
