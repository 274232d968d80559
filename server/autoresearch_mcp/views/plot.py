"""The progress picture people know from autoresearch: every experiment, the kept ones marked, the running best."""

import warnings
from math import isfinite
from pathlib import Path

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.noise import Estimate
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import one_line
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, shown_gain


def draw(state: SessionState, target: Path) -> None:
    """Writes the picture; the ending of `target` decides the format. Raises NotFoundError before there is a score."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    scored = [(e.number, e, e.score) for e in state.experiments if e.score is not None]
    if not scored:
        raise NotFoundError("There is no score to draw yet. Run an experiment first.")
    kept = [row for row in scored if row[1].kept]
    discarded = [row for row in scored if not row[1].kept]
    failed = [e.number for e in state.experiments if e.score is None and not e.running]
    metric = state.started.metric
    arrow = "lower is better" if state.started.direction == "minimize" else "higher is better"

    figure, axes = pyplot.subplots(figsize=(12, 6), layout="constrained")
    axes.scatter([row[0] for row in discarded], [row[2] for row in discarded], s=16, c="#b8b8b8", label="discarded", zorder=2)
    axes.scatter([row[0] for row in kept], [row[2] for row in kept], s=56, c="#2a9d57", edgecolors="black", label="kept", zorder=4)
    repeated = [row for row in scored if len(row[1].scores) > 1]
    if repeated:
        reach = [_reach(state, experiment) for _, experiment, _ in repeated]
        axes.errorbar(
            [row[0] for row in repeated], [row[2] for row in repeated], yerr=reach, fmt="none", ecolor="#7a7a7a", elinewidth=1,
            capsize=2, label="95 % of repeated ones", zorder=3,
        )  # fmt: skip
    if kept:
        edges = [row[0] for row in kept] + [state.experiments[-1].number]
        best = [state.estimates.get(number, score) for number, _, score in kept]
        axes.step(edges, [*best, best[-1]], where="post", c="#2a9d57", alpha=0.7, label="best, as it is known", zorder=3)
        for number, experiment, score in kept[-25:]:
            text = one_line(experiment.committed.description, 500)
            axes.annotate(
                text if len(text) <= 40 else text[:39] + "…",
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
    finite = [row[2] for row in kept or scored]
    spread = (max(finite) - min(finite)) or abs(finite[0]) * 0.01 or 1.0
    if kept:  # a few wild discards must not flatten what was won
        everything = [row[2] for row in scored]
        axes.set_ylim(
            max(min(everything), min(finite) - spread) - 0.15 * spread, min(max(everything), max(finite) + spread) + 0.35 * spread
        )
    axes.set_xlabel("experiment")
    axes.set_ylabel(f"{metric} ({arrow})")
    last = f", best {best_in_words(state)}" if state.best else ""
    if state.standing.total is not None:
        last += f", gain {gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0))}"
    axes.set_title(f"{state.started.tag}: {len(state.experiments)} experiments, {len(kept)} kept{last}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    axes.legend(loc="best")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # what the font lacks is drawn as a box
            figure.savefig(target, dpi=150)
    except (ValueError, OSError) as error:
        raise NotFoundError(f"The picture cannot be written to {target}: {error}. Name a .png, .svg or .pdf file.") from error
    finally:
        pyplot.close(figure)


def _reach(state: SessionState, experiment: ExperimentState) -> float:
    """Half of the 95 % interval of its mean, by the noise at its level; 0 where that is not known."""
    noise = state.noise_near(experiment)
    if not noise.deviation or len(experiment.scores) < 2:
        return 0.0
    reach = Estimate(0.0, noise.deviation / len(experiment.scores) ** 0.5, noise.degrees).interval()[1]
    return reach if isfinite(reach) else 0.0
