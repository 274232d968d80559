"""What people read in the morning, in plain words. For them alone: it tells of the holdout."""

from math import isfinite
from typing import Any

from autoresearch_mcp.loop.ablate import Left
from autoresearch_mcp.loop.reproduce import Reproduction
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.loop.verify import Verification
from autoresearch_mcp.record.noise import Estimate, mean
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
        output = session.workspace.runs_dir / str(found.failed[0].run) / "output.log"
        return "\n".join([*lines, f"Not verified, {pair}: {named} gave no score, which is on record. Its output: {output}"])
    if found.gain is None:
        where = "; ".join(found.hardware) or "not recorded"
        advice = "Call again when the machine is as it shall be: that makes runs of its own."
        return "\n".join([*lines, f"Not verified, {pair}: the runs were on different hardware ({where}). {advice}"])
    each, scale = len(found.runs) // 2, state.best_score or state.baseline_score or 0.0
    where = f" on {found.hardware[0]}" if found.hardware else ""
    lines.append(f"Gain in {metric}, {pair}: {_said(found.gain, scale)}, from {each} fresh runs each{where}.")
    if found.claimed:
        lines.append(f"The night claims {gain_in_words(shown_gain(found.claimed, scale))}.")
    if found.holdout is not None and found.overfit is not None:
        lines.append(f"On the sealed holdout: {_said(found.holdout, scale)}.")
        lines.append(
            f"More on val than there, which is overfitting to val: {_said(found.overfit, scale)}. {_overfit(found.overfit)}"
        )
    else:
        lines.append("There is no score on a sealed holdout, so nothing tells how much of it is overfitting to val.")
    if found.disturbed:
        which = ", ".join(f"run {ended.run} ({ended.disturbed})" for ended in found.disturbed)
        lines.append(f"Disturbed, and counted after two more tries: {which}. What follows is worth less for it.")
    lines.append(_conclusion(found))
    if found.holdout is not None:
        times = f"{found.looks} time{'s' if found.looks != 1 else ''}"
        lines.append(f"`verify` has looked at the holdout {times}, `status` shows the night's own; each choice by it wears it out.")
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
        "disturbed": {ended.run: ended.disturbed for ended in found.disturbed},
        "hardware": found.hardware,
        "gain": figures(found.gain),
        "claimed": figures(found.claimed),
        "holdout_gain": figures(found.holdout),
        "overfit": figures(found.overfit),
        "holdout_looks": found.looks,
        "text": verified(session, found),
    }


def _said(gain: Estimate, scale: float) -> str:
    return gain_in_words(shown_gain(gain, scale))


def _conclusion(found: Verification) -> str:
    """Whether the night's gain is real. The holdout is the last judge, where there is one."""
    assert found.gain is not None
    low, high = found.gain.interval()
    if high < 0:
        return "The best is worse than the baseline: what was kept was luck."
    if low <= 0 and found.simplified:
        exactly = "exactly as good as" if not found.gain.error and not found.gain.value else "not shown to be worse than"
        return f"What was kept was kept for being shorter and claims no gain; it is {exactly} the baseline."
    if low <= 0:
        return "The gain is not shown: luck alone could make it. More runs (--runs) may tell."
    if found.holdout is None:
        return "The gain on val is real: its whole 95 % interval is better than nothing."
    sealed_low, sealed_high = found.holdout.interval()
    if sealed_low > 0:
        return "The gain is real: on val and on the holdout the whole 95 % interval is better than nothing."
    if sealed_high < 0:
        return "The gain is not real: there is one on val, and on the holdout a loss. What was kept fits val alone."
    return "The gain on val is no luck, but the holdout does not show it: it may fit val alone. More runs (--runs) may tell."


def _overfit(extra: Estimate) -> str:
    low, _ = extra.interval()
    return "Some of the gain is." if low > 0 else "None is shown."


def reproduced(session: Session, found: Reproduction) -> str:
    """What running an experiment again says."""
    experiment, ended, metric = found.experiment, found.ended, session.task.metric.name
    scores = experiment.by_hardware.get(ended.hardware) or experiment.scores
    number, recorded = experiment.number, mean(scores) if scores else 0.0
    was = f"experiment {number}, recorded with {format_score(recorded)} in {len(scores)} run{'s' if len(scores) != 1 else ''}"
    if ended.disturbed:
        was += f". This run was disturbed: {ended.disturbed}"
    if ended.score is None:
        output = session.workspace.runs_dir / str(found.started.run) / "output.log"
        return f"Not reproduced: {was}, now ended without a score ({ended.failure}). Its output: {output}"
    now = f"{metric} {format_score(ended.score)} with seed {found.started.seed}; {was}"
    if found.torch_differs:
        versions = f"{found.started.torch or 'none'} now, {found.recorded.torch or 'not recorded'} then"
        return f"{now}.\nNot compared: torch is another ({versions}). That it runs and is scored does reproduce."
    if found.away is None and ended.hardware in found.hardware:
        return f"{now}.\nNot compared: all that was recorded was disturbed. That it runs and is scored does reproduce."
    if found.away is None:
        then = "; ".join(name or "not recorded" for name in found.hardware)
        return (
            f"{now}.\nNot compared: it ran on {ended.hardware or 'hardware not recorded'} now and on {then} then, where speed and "
            "order of additions are others. That it runs and is scored does reproduce."
        )
    if ended.score in experiment.scores:
        return f"{now}.\nReproduced to the last digit."
    if not isfinite(found.away.error):
        advice = "Nothing was ever repeated, so nobody knows how noisy a run is. Run: autoresearch-mcp calibrate"
        return f"{now}.\nNot compared, though it is away by {_said(found.away, recorded)}. {advice}"
    low, high = found.away.interval()
    if not found.away.error or low > 0 or high < 0:
        return f"{now}.\nNot reproduced: away by {_said(found.away, recorded)}, which is more than the noise."
    return f"{now}.\nReproduced within the noise: {_said(found.away, recorded)}."


def ablated(session: Session, left: list[Left]) -> str:
    """What each change is worth, as a table."""
    scale = session.state.best_score or session.state.baseline_score or 0.0
    rows = [("experiment", "worth ± 95 %", "", "change")]
    for one in left:
        worth = _said(one.worth, scale) if one.worth else "not known"
        numbers = " and ".join(str(change.number) for change in one.changes)
        told = one_line(" and ".join(change.committed.description for change in one.changes), 80)
        rows.append((numbers, worth, _stays(one), told))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])) for row in rows]
    if marked := sum(one.disturbed for one in left):
        lines.append(f"Disturbed runs among these: {marked}; `log` says by what. The table is worth less for it.")
    removable = [str(one.changes[0].number) for one in left if len(one.changes) == 1 and _may_go(one)]
    if removable:
        lines.append(f"A branch without it: autoresearch-mcp finalize --drop {removable[0]}")
    if len(removable) > 1:
        both = " ".join(f"--without {number}" for number in removable[:2])
        lines.append(f"Each was left out alone, and two may do the same work. Both at once: autoresearch-mcp ablate {both}")
    return "\n".join(lines)


def _may_go(one: Left) -> bool:
    """Whether nothing speaks for a change: it does not help, and is not there for being shorter."""
    return one.worth is not None and isfinite(one.worth.error) and one.worth.interval()[0] <= 0 and not one.simpler


def _stays(one: Left) -> str:
    if one.worth is None:
        return one.reason
    low, high = one.worth.interval()
    if not isfinite(one.worth.error):
        return "not known: more runs (--runs) tell"
    if high < 0:
        return "hurts"
    if low > 0:
        return "stays"
    return "stays: it is the shorter file" if one.simpler else "can go: not shown to help"
