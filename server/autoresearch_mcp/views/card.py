"""One picture to share, 1200 x 630: the night's curve, its figures, and how far they can be trusted. The holdout is never in it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop import limits
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import format_score, one_line, within
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, shown_gain
from autoresearch_mcp.views.page.gains import real, weakest
from autoresearch_mcp.views.plot import drawing, save, scored, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, SOFT, LINE = "#ffffff", "#171b1f", "#5a636c", "#e4e5df"
KEPT, KEPT_INK, KEPT_GROUND, DOT = "#1b8a4b", "#14683a", "#dff3e6", "#b4bac0"
AMBER, AMBER_GROUND, RED, RED_GROUND = "#a35f00", "#fdf0d9", "#b3372b", "#fbe6e3"
WORDS = {
    "yes": "verified by fresh runs",
    "no": "not real: fresh runs say so",
    "unclear": "fresh runs do not show it",
    "spoilt": "verification failed",
    "not asked": "not verified yet",
    "nothing": "nothing to verify",
}
Align = Literal["left", "center", "right"]
LABEL: Any = {
    "textcoords": "offset points",
    "fontsize": 10.5,
    "c": KEPT_INK,
    "parse_math": False,
    "annotation_clip": True,
    "zorder": 5,
}
NAMED = 4  # kept experiments that are named in the curve


def draw_card(session: Session, target: Path) -> None:
    """Writes it; the ending of `target` decides the format. Raises NotFoundError before there is a score."""
    state = session.state
    if not scored(state):
        raise NotFoundError("There is no score to show yet. Run an experiment first.")
    figure = drawing().figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    _words(figure, session)
    _curve(figure.add_axes((0.062, 0.175, 0.9, 0.43)), state)
    save(figure, target, figure.dpi)
    if target.suffix == ".svg":  # which matplotlib gives a size in points
        target.write_text(re.sub(r'width="[0-9.]+pt" height="[0-9.]+pt"', 'width="1200" height="630"', target.read_text(), count=1))


def _words(figure: "Figure", session: Session) -> None:
    state, task = session.state, session.task

    def write(x: float, y: float, text: str, size: float, color: str, ha: Align = "left", weight: str = "normal") -> float:
        """Returns where it ends, in shares of the width."""
        drawn = figure.text(x, y, text, fontsize=size, color=color, va="baseline", parse_math=False, ha=ha, weight=weight)
        return drawn.get_window_extent().x1 / figure.bbox.width

    better = "lower" if task.metric.direction == "minimize" else "higher"
    write(0.05, 0.905, within(task.name, 38), 17, INK, weight="bold")
    write(0.95, 0.905, f"{within(task.metric.name, 30)}, {better} is better", 13, SOFT, ha="right")
    best, _, reach = best_in_words(state).partition(" ± ")
    first = format_score(state.baseline_score) if state.baseline_score is not None and len(state.kept) > 1 else ""
    end = 0.05
    if first:
        end = write(end, 0.755, first, 30, SOFT) + 0.012
        end = write(end, 0.755, "→", 30, SOFT) + 0.012
    end = write(end, 0.755, best or "no best yet", 42, INK, weight="bold")
    write(end + 0.012, 0.755, f"± {reach}" if reach else "", 17, SOFT)
    gain = gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0))
    if gain:
        write(0.95, 0.665, f"gain {gain}" + (", 95 %" if "±" in gain else ""), 16, KEPT_INK, ha="right", weight="bold")
    tried = [_count(len(state.experiments), "experiment"), f"{len(state.kept)} kept", _count(limits.runs(state), "run")]
    write(0.05, 0.665, ", ".join(tried), 14, SOFT)
    _marks(figure, session)
    write(0.95, 0.052, "autoresearch-mcp", 13, INK, weight="bold", ha="right")


def _marks(figure: "Figure", session: Session) -> None:
    """What says how far the figures can be trusted."""
    state = session.state
    ended = [run.ended for experiment in state.experiments for run in experiment.runs if run.ended]
    level, disturbed = weakest(ended), sum(bool(run.disturbed) for run in ended)
    found = real(session, False, "")["state"]
    good, open_, bad = (KEPT_INK, KEPT_GROUND), (AMBER, AMBER_GROUND), (RED, RED_GROUND)
    marks = [(WORDS[found], good if found == "yes" else bad if found == "no" else open_)]
    marks.append((f"sandbox: {level or 'none'}", good if level not in ("", "none") else bad))
    best = state.best
    runs = len(best.scores) if best else 0
    marks.append((f"best from {_count(runs, 'run')}", good if runs > 1 else open_))
    if disturbed:
        marks.append((f"{disturbed} runs disturbed", open_))
    x = 0.058
    for text, (ink, ground) in marks:
        box = {"boxstyle": "round,pad=0.45,rounding_size=1.1", "facecolor": ground, "edgecolor": "none"}
        drawn = figure.text(x, 0.052, text, fontsize=12.5, color=ink, va="baseline", bbox=box, parse_math=False)
        x = drawn.get_window_extent().x1 / figure.bbox.width + 0.033


def _curve(axes: "Axes", state: SessionState) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = scored(state)
    kept = [row for row in rows if row[1].kept]
    others = [row for row in rows if not row[1].kept]
    axes.set_facecolor(PAPER)
    axes.scatter([row[0] for row in others], [row[2] for row in others], s=13, c=DOT, linewidths=0, zorder=2)
    if kept:
        edges = [row[0] for row in kept] + [state.experiments[-1].number + 0.5]
        best = [state.estimates.get(number, score) for number, _, score in kept]
        axes.step(edges, [*best, best[-1]], where="post", c=KEPT, linewidth=2.2, zorder=3)
        axes.scatter([row[0] for row in kept], [row[2] for row in kept], s=52, c=KEPT, edgecolors=PAPER, linewidths=1.4, zorder=4)
        if (known := state.standing.score) is not None and known.error:
            low, high = (state.sign * end for end in known.interval())
            axes.fill_between(edges[-2:], [low, low], [high, high], color=KEPT, alpha=0.2, linewidth=0, zorder=1)
    axes.set_ylim(*window(rows))
    axes.set_xlim(state.experiments[0].number - 0.5, state.experiments[-1].number + 0.5)
    for number, experiment, score in _worth_naming(kept):
        axes.annotate(_short(experiment), (number, score), xytext=(7, 8), **LABEL)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=SOFT, labelsize=10.5, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _worth_naming(kept: list[tuple[int, ExperimentState, float]]) -> list[tuple[int, ExperimentState, float]]:
    """The kept ones that gained most, which is what people ask about."""
    gained = [row for row in kept if row[1].verdict and row[1].verdict.gain]
    return sorted(gained, key=lambda row: -row[1].verdict.gain[0] if row[1].verdict else 0.0)[:NAMED]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _short(experiment: ExperimentState) -> str:
    return within(one_line(experiment.committed.description, 500), 36)
