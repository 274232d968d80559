"""The report of a session: Markdown and a picture, for a colleague who has two minutes; not for agents, it tells of the holdout."""

from pathlib import Path

from autoresearch_mcp import __version__
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.loop.finalize import Final, gain_of
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import Verified
from autoresearch_mcp.text import format_score, one_line, visible
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, noise_in_words, saved_in_words, shown_gain
from autoresearch_mcp.views.plot import draw

FOLDER, PICTURE = "report", "progress.png"


def write_report(session: Session, final: Final) -> Path:
    """Writes report/report.md and the picture beside it; returns the report's path. Raises OSError."""
    folder = session.workspace.root / FOLDER
    folder.mkdir(exist_ok=True)
    draw(session.state, folder / PICTURE)
    path = folder / "report.md"
    write_atomic(path, visible(report(session, final)).encode())
    return path


def report(session: Session, final: Final) -> str:
    state, metric, task = session.state, session.task.metric, session.task
    better = "lower" if metric.direction == "minimize" else "higher"
    counts = ", ".join(f"{count} {name}" for name, count in state.counts.items())
    runs = sum(len(experiment.runs) for experiment in state.experiments)
    baseline, best = format_score(state.baseline_score or 0.0), best_in_words(state)
    gain = gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0)) or "not measured"
    tried = "; ".join(part for part in (counts, saved_in_words(state)) if part)
    lines = [
        f"# {task.name}: session {session.tag}",
        "",
        f"{task.goal} ({metric.name}, {better} is better.)",
        "",
        f"- **Result**: {baseline} before, {best} after, a gain of {gain}.",
        f"- **Verified**: {_verified(state.verified, state.best_score or 0.0)}",
        f"- **Tried**: {len(state.experiments)} experiments in {runs} runs ({tried}).",
        f"- **Noise**: {noise_in_words(state)}.",
        f"- **Branch**: `{final.branch}`, {len(final.changes)} commits on `{state.started.base_commit[:12]}`.",
    ]
    if final.unverified:
        lines.append("- **Note**: changes were dropped, so the branch's file is none that was scored.")
    lines += ["", f"![progress]({PICTURE})", "", "## What was kept", "", f"| experiment | change | {metric.name} | gain | runs |"]
    lines += ["|---|---|---|---|---|"]
    for experiment in final.changes:
        score = format_score(experiment.score or 0.0)
        figures = (
            gain_of(experiment.verdict.gain, experiment.score or 0.0) if experiment.verdict and experiment.verdict.gain else "-"
        )
        description = one_line(experiment.committed.description, 200).replace("|", "\\|")
        lines.append(f"| {experiment.number} | {description} | {score} | {figures} | {len(experiment.scores)} |")
    if state.lessons:
        lines += ["", "## What was learned", ""]
        lines += [f"- {one_line(text, 300)} (experiment {number})" for text, number in reversed(state.lessons.items())][:10]
    lines += [
        "",
        "## To do it again",
        "",
        "```sh",
        f"git checkout {final.branch}",
        f"autoresearch-mcp reproduce {final.changes[-1].number} --session {session.tag}",
        "```",
        "",
        f"Made by autoresearch-mcp {__version__} on {state.hardware or 'hardware that was not recorded'}; budget of a run "
        f"{task.run.budget_seconds:g} s.",
    ]
    return "\n".join(lines) + "\n"


def _verified(verified: list[Verified], score: float) -> str:
    if not verified:
        return "no; `autoresearch-mcp verify` runs baseline and best again."
    last = verified[-1]
    told = f"{len(last.runs) // 2} fresh runs each gained {gain_of([last.gain, last.gain_low, last.gain_high], score)}"
    if last.holdout_gain is not None and last.holdout_low is not None and last.holdout_high is not None:
        told += f"; on the sealed holdout {gain_of([last.holdout_gain, last.holdout_low, last.holdout_high], score)}"
    return told + "."
