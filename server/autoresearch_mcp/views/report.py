"""The report of a session: Markdown and a picture, for a colleague who has two minutes; not for agents, it tells of the holdout."""

from pathlib import Path

from autoresearch_mcp import __version__
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.loop.finalize import Final, gain_of
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.verify import holdout_looks
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.text import format_score, one_line, quoted, visible
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, noise_in_words, saved_in_words, shown_gain, those_there
from autoresearch_mcp.views.plot import draw

FOLDER, PICTURE, PAGE = "report", "progress.png", "report.md"
SIGNED = "Made by autoresearch-mcp"


def place_of(session: Session) -> Path:
    """The folder that the report goes into: `report`, unless files of the user's are there, which are not ours to write."""
    workspace = session.workspace
    page = workspace.root / FOLDER / PAGE
    theirs = workspace.run("ls_files", "--", FOLDER) or (workspace.root / FOLDER).is_file()
    theirs = theirs or (page.exists() and SIGNED not in page.read_text(errors="replace"))
    return workspace.state_dir / FOLDER if theirs else workspace.root / FOLDER


def write_report(session: Session, final: Final, folder: Path) -> Path:
    """Writes the page and the picture beside it; returns the page's path. Raises OSError."""
    folder.mkdir(exist_ok=True)
    draw(session.state, folder / PICTURE)
    path = folder / PAGE
    write_atomic(path, visible(report(session, final)).encode())
    return path


def report(session: Session, final: Final) -> str:
    state, metric, task = session.state, session.task.metric, session.task
    better = "lower" if metric.direction == "minimize" else "higher"
    counts = ", ".join(f"{count} {name}" for name, count in state.counts.items())
    runs = sum(run.counts for experiment in state.experiments for run in experiment.runs)
    baseline, best = format_score(state.baseline_score or 0.0), best_in_words(state)
    gain = gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0)) or "not measured"
    tried = "; ".join(part for part in (counts, saved_in_words(state)) if part)
    lines = [
        f"# {task.name}: session {session.tag}",
        "",
        f"{task.goal} ({metric.name}, {better} is better.)",
        "",
        f"- **Result**: {baseline} before, {best} after, a gain of {gain}.",
        f"- **Verified**: {_verified(session, final)}",
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
        figures = _worth(experiment)
        description = quoted(one_line(experiment.committed.description, 200))
        lines.append(f"| {experiment.number} | {description} | {score} | {figures} | {len(experiment.scores)} |")
    if state.lessons:
        lines += ["", "## What was learned", ""]
        lines += [f"- {quoted(one_line(text, 300))} (experiment {number})" for text, number in reversed(state.lessons.items())][:10]
    if final.gone:
        numbers = ", ".join(str(experiment.number) for experiment in final.gone)
        lines += ["", f"Kept, and taken back by what came later: {numbers}."]
    again = [f"git diff {state.started.base_commit[:12]} {final.branch}"]
    if not final.unverified and state.best is not None:
        again.append(f"autoresearch-mcp reproduce {state.best.number} --session {session.tag}")
    lines += [
        "",
        "## To do it again",
        "",
        "```sh",
        *again,
        "```",
        "",
        f"{SIGNED} {__version__} on {state.hardware or 'hardware that was not recorded'}; budget of a run "
        f"{task.run.budget_seconds:g} s.",
    ]
    return "\n".join(lines) + "\n"


def _verified(session: Session, final: Final) -> str:
    """What fresh runs said of what is reported here, each time that they were asked."""
    state = session.state
    best, score = state.best, state.best_score or 0.0
    ours = [one for one in state.verified if best is not None and one.best == best.number and not final.unverified]
    looks = holdout_looks(session)
    times = f" The holdout was looked at {looks} time{'s' if looks != 1 else ''}." if looks else ""
    if not ours:
        of = f"; the last verification was of experiment {state.verified[-1].best}" if state.verified else ""
        return f"no{of}. `autoresearch-mcp verify` runs baseline and best again.{times}"
    last, failed = ours[-1], sum(one.gain is None for one in ours)
    spoilt = f" {failed} of {len(ours)} verifications said nothing: a run failed, or was on other hardware." if failed else ""
    if not (gained := those_there(last.gain, last.gain_low, last.gain_high)):
        return f"no.{spoilt}{times}"
    told = f"{len(last.runs) // 2} fresh runs each gained {gain_of(gained, score)}"
    before = [those_there(one.gain, one.gain_low, one.gain_high) for one in ours[:-1]]
    if earlier := [gain_of(figures, score) for figures in before if figures]:
        spoilt = f" Asked before, they gained {'; '.join(earlier)}.{spoilt}"
    if last.disturbed:
        spoilt = f" {len(last.disturbed)} of them were disturbed.{spoilt}"
    if sealed := those_there(last.holdout_gain, last.holdout_low, last.holdout_high):
        told += f"; on the sealed holdout {gain_of(sealed, score)}"
    return f"{told}.{spoilt}{times}"


def _worth(experiment: ExperimentState) -> str:
    """What a kept change was kept for."""
    verdict = experiment.verdict
    if verdict is None or not (verdict.gain or verdict.simpler):
        return "-"
    return "shorter, no worse" if verdict.simpler else gain_of(verdict.gain, experiment.score or 0.0)
