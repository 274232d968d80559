"""Tables of the terminal."""

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.text import format_score, one_line, visible
from autoresearch_mcp.views.figures import best_in_words, gain_in_words, shown, shown_gain, startup

WIDTH = 160  # characters
WHOLE, HALF = 110, 80  # characters of a terminal that has room for all columns, and for most
SPARE = ("commit", "runs", "gain ± 95 %", "start-up", "seconds")
STYLES = {"keep": "green", "crash": "red", "timeout": "red", "refused": "red", "pruned": "red", "running": "yellow"}


def console() -> Console:
    """For tables: as wide as the terminal, or as WIDTH where there is none, since a file or a pipe has no width."""
    made = Console(highlight=False, soft_wrap=True)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH
    return made


def experiments_table(session: Session, rows: int | None = None, width: int | None = None) -> Table:
    """All experiments of a session, or the latest `rows`. With `width` each is one line, with what has room."""
    state, metric = session.state, session.task.metric.name
    gain = gain_in_words(shown_gain(state.standing.total, state.best_score or 0.0))
    best = f", best {best_in_words(state)}" if state.best else ""
    best += f", gain {gain}" if gain else ""
    table = Table(
        title=f"{session.tag}: {len(state.experiments)} experiments{best}", title_justify="left", expand=width is not None
    )
    numbers = ("#", metric, "runs", "start-up", "seconds")
    left_out = () if width is None or width >= WHOLE else ("commit", "start-up", "seconds") if width >= HALF else SPARE
    names = ("#", "commit", metric, "runs", "gain ± 95 %", "status", "start-up", "seconds", "description")
    shown_names = [name for name in names if name not in left_out]
    for name in shown_names:
        side = "right" if name in numbers else "left"
        if width is None:
            table.add_column(name, justify=side)
        else:
            table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", ratio=1 if name == "description" else None)
    for experiment in state.experiments[-rows:] if rows else state.experiments:
        seconds = sum(experiment.last.seconds.values()) if experiment.last else 0.0
        started = startup(experiment)
        cells = (
            str(experiment.number),
            experiment.committed.commit[:7],
            format_score(experiment.score) if experiment.score is not None else "-",
            str(len(experiment.scores)) if experiment.scores else "-",
            gain_in_words(shown(experiment.verdict.gain, experiment.score or 0.0)) if experiment.verdict else "",
            Text(one_line(experiment.label, 40), style=STYLES.get(experiment.status, "")),
            f"{started:.1f}" if started is not None else "-",
            f"{seconds:.0f}",
            Text(one_line(experiment.committed.description, 500)),
        )
        table.add_row(*(cell for name, cell in zip(names, cells, strict=True) if name not in left_out))
    return table


def progress_line(session: Session) -> str:
    """Where the run that is on stands, or else the next step."""
    running = session.state.running
    if not running:
        return visible(session.position().next)
    progress = session.progress()
    limit = f" of at most {progress.limit:.0f}" if progress.limit else ""
    return f"experiment {running[0][0].number}: {progress.phase}, {progress.elapsed:.0f} s{limit}"
