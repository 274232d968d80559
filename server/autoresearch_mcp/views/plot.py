"""The progress picture people know from autoresearch: every experiment, the kept ones marked, the running best."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import one_line, within
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, reach, shown_gain
from autoresearch_mcp.views.printed import printed, recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 12  # learning curves in one picture, the latest
Scored = tuple[int, ExperimentState, float]


def draw(state: SessionState, target: Path) -> None:
    """Writes the picture; the ending of `target` decides the format. Raises NotFoundError before there is a score."""
    from matplotlib.ticker import MaxNLocator

    rows = scored(state)
    if not rows:
        raise NotFoundError("There is no score to draw yet. Run an experiment first.")
    kept = [row for row in rows if row[1].kept]
    discarded = [row for row in rows if not row[1].kept]
    failed = [e.number for e in state.experiments if e.score is None and not e.running]
    metric = state.started.metric
    arrow = "lower is better" if state.started.direction == "minimize" else "higher is better"

    figure, axes = drawing().subplots(figsize=(12, 6), layout="constrained")
    axes.scatter([row[0] for row in discarded], [row[2] for row in discarded], s=16, c="#b8b8b8", label="discarded", zorder=2)
    axes.scatter([row[0] for row in kept], [row[2] for row in kept], s=56, c="#2a9d57", edgecolors="black", label="kept", zorder=4)
    repeated = [row for row in rows if len(row[1].scores) > 1]
    if repeated:
        reaches = [reach(state, experiment) for _, experiment, _ in repeated]
        axes.errorbar(
            [row[0] for row in repeated], [row[2] for row in repeated], yerr=reaches, fmt="none", ecolor="#7a7a7a", elinewidth=1,
            capsize=2, label="95 % of repeated ones", zorder=3,
        )  # fmt: skip
    if kept:
        edges = [row[0] for row in kept] + [state.experiments[-1].number]
        best = [state.estimates.get(number, score) for number, _, score in kept]
        axes.step(edges, [*best, best[-1]], where="post", c="#2a9d57", alpha=0.7, label="best, as it is known", zorder=3)
        for number, experiment, score in kept[-25:]:
            text = one_line(experiment.committed.description, 500)
            axes.annotate(
                within(text, 40),
                (number, score),
                xytext=(5, 6),
                textcoords="offset points",
                rotation=30,
                fontsize=8,
                c="#1d6b3c",
                parse_math=False,
            )
    axes.scatter(
        failed, [0.02] * len(failed), transform=axes.get_xaxis_transform(), s=24, c="#c0392b", marker="x", label="no score"
    )
    if kept:
        axes.set_ylim(*window(rows))
    axes.set_xlabel("experiment")
    axes.set_ylabel(f"{metric} ({arrow})")
    last = f", best {best_in_words(state)}" if state.best else ""
    if state.standing.total is not None:
        last += f", gain {gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0))}"
    axes.set_title(f"{state.started.tag}: {len(state.experiments)} experiments, {len(kept)} kept{last}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    axes.legend(loc="best")
    save(figure, target)


def draw_curves(session: Session, target: Path) -> None:
    """Writes the learning curves of what was kept, the best's in front. Raises NotFoundError where no run has printed any."""
    kept = session.state.kept
    read = [(experiment, curve) for experiment in kept if (curve := printed(session, experiment))]
    found = [(experiment, points) for experiment, curve in read if len(points := curve.look()) > 1]
    across = "as the run counts it"
    if len(found) < len(kept):  # a log is gone: what the record has of all is compared
        found = [(experiment, points) for experiment in kept if len(points := recorded(experiment)) > 1]
        across = "share of the budget"
    if not found:
        raise NotFoundError(
            "No run that was kept has printed a curve. A task says by run.progress how its curve is found in what a run prints."
        )
    pyplot = drawing()
    figure, axes = pyplot.subplots(figsize=(12, 6), layout="constrained")
    colours = pyplot.get_cmap("viridis_r")
    for place, (experiment, points) in enumerate(found[-CURVES:]):
        last = experiment is session.state.best
        share = place / max(1, len(found[-CURVES:]) - 1)
        name = f"{experiment.number} {one_line(experiment.committed.description, 60)}"
        axes.plot(
            [x for x, _ in points], [y for _, y in points], label=name.replace("$", r"\$"), c=colours(0.15 + 0.85 * share),
            linewidth=2.2 if last else 1.2, zorder=3 + place,
        )  # fmt: skip
    late = [y for _, points in found for _, y in points[len(points) // 10 :]]  # where nothing is known yet would flatten the rest
    room = (max(late) - min(late) or abs(late[0]) * 0.01 or 1.0) * 0.06
    axes.set_ylim(min(late) - room, max(late) + room)
    axes.set_xlabel(across)
    axes.set_ylabel("what the run printed")
    axes.set_title(f"{session.tag}: learning curves of what was kept")
    axes.grid(alpha=0.2)
    axes.legend(loc="best", fontsize=9)
    save(figure, target)


def scored(state: SessionState) -> list[Scored]:
    """Number, experiment and score of those that have one."""
    return [(e.number, e, e.score) for e in state.experiments if e.score is not None]


def window(rows: list[Scored]) -> tuple[float, float]:
    """What of the scores is drawn: a few wild ones must not flatten what was won."""
    everything = [row[2] for row in rows]
    kept = [row[2] for row in rows if row[1].kept] or everything
    spread = (max(kept) - min(kept)) or abs(kept[0]) * 0.01 or 1.0
    low, high = max(min(everything), min(kept) - spread), min(max(everything), max(kept) + spread)
    return low - 0.15 * spread, high + 0.35 * spread


def drawing() -> Any:
    """matplotlib.pyplot, for files alone. Imported here, since it takes a second and few commands draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: "Figure", target: Path, dpi: float = 150) -> None:
    """Raises NotFoundError where it cannot be written."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # what the font lacks is drawn as a box
            figure.savefig(target, dpi=dpi)
    except (ValueError, OSError) as error:
        raise NotFoundError(f"The picture cannot be written to {target}: {error}. Name a .png, .svg or .pdf file.") from error
    finally:
        drawing().close(figure)
