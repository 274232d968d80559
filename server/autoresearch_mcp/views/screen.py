"""The night in a terminal, drawn anew at each look: progress, the run that is on and its curve, the latest rows."""

from importlib import import_module
from itertools import pairwise
from typing import Any

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.text import one_line
from autoresearch_mcp.views.page.content import Json, Now
from autoresearch_mcp.views.plot import scored, window
from autoresearch_mcp.views.terminal import experiments_table, progress_line

CHART, CURVE = 14, 9  # lines of the two drawings
TABLE, LEAST_ROWS, LEAST_WIDTH = 6, 4, 60  # lines around the rows, with one to spare; rows and width without which nothing is drawn
MOST = 2000  # experiments that are drawn, the latest


class Screen:
    """Of one session, as high as the terminal and no higher: what is cut off would be what is on."""

    def __init__(self, session: Session, rows: int):
        self._session, self._rows = session, rows
        self._now = Now()
        self._drawn: object = None

    def has_changed(self, size: ConsoleDimensions) -> bool:
        """Whether there is anything new to draw."""
        self._session.refresh()
        return self._drawn != self._state(size, self._now.of(self._session, [self._session]))

    def _state(self, size: ConsoleDimensions, now: Json) -> object:
        return size, self._session.ledger.length, now

    def look(self, size: ConsoleDimensions) -> RenderableType:
        session = self._session
        session.refresh()
        now = self._now.of(session, [session])
        self._drawn = self._state(size, now)
        left = size.height - TABLE - (len(now["runs"]) + 2 if now["runs"] else 1)
        drawn = size.width >= LEAST_WIDTH and left - CHART >= LEAST_ROWS and bool(scored(session.state))
        left -= CHART if drawn else 0
        with_curve = size.width >= LEAST_WIDTH and left - CURVE >= LEAST_ROWS and len(now["curve"]) > 1
        left -= CURVE if with_curve else 0
        parts: list[RenderableType] = [experiments_table(session, max(1, min(self._rows, left)), size.width)]
        if drawn:
            parts.append(Text.from_ansi(_progress(session, size.width)))
        if now["runs"]:
            parts.append(_running(now, size.width, with_curve))
        else:
            parts.append(Text(progress_line(session), no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


def _progress(session: Session, width: int) -> str:
    """All experiments as dots, the kept ones larger, and the best as a line."""
    state = session.state
    rows = scored(state)[-MOST:]
    low, high = window(rows)
    kept = [row for row in rows if row[1].kept]
    plotext = _drawing(width, CHART)
    inside = [row for row in rows if not row[1].kept and low <= row[2] <= high]
    if inside:
        plotext.scatter([row[0] for row in inside], [row[2] for row in inside], marker="·", color="gray")
    if kept:
        edges = [*(row[0] for row in kept), state.experiments[-1].number]
        best = [state.estimates.get(row[0], row[2]) for row in kept]
        x = [edge for pair in pairwise(edges) for edge in pair]
        y = [score for score in best for _ in range(2)]
        plotext.plot(x, y, marker="braille", color="green")
        plotext.scatter([row[0] for row in kept], [row[2] for row in kept], marker="●", color="green+")
    plotext.ylim(low, high)
    plotext.xlim(rows[0][0] - 0.5, state.experiments[-1].number + 0.5)
    return plotext.build().rstrip("\n")


def _running(now: Json, width: int, with_curve: bool) -> RenderableType:
    parts: list[RenderableType] = []
    for run in now["runs"]:
        whole = run["budget"] if run["phase"] == "training" else run["limit"]
        told = f"{run['phase']}, {run['elapsed']:.0f} s" + (f" of {whole:.0f}" if whole else "")
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(width=24)
        line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=whole, completed=min(run["elapsed"], whole), width=24) if whole else Text("")
        line.add_row(Text(f"experiment {run['number']}"), bar, Text(f"{told}   {one_line(run['note'] or run['description'], 200)}"))
        parts.append(line)
    if with_curve:
        parts.append(Text.from_ansi(_curve(now, width - 4)))
    return Panel(Group(*parts), title="now", title_align="left", border_style="dim")


def _curve(now: Json, width: int) -> str:
    late = [y for curve in (now["curve"], now["best_curve"]) for _, y in curve[len(curve) // 10 :]]
    plotext = _drawing(width, CURVE)
    for curve, colour in ((now["best_curve"], "gray"), (now["curve"], "blue")):
        if curve:
            plotext.plot([x for x, _ in curve], [y for _, y in curve], marker="braille", color=colour)
    if max(late) > min(late):
        plotext.ylim(min(late), max(late))
    return plotext.build().rstrip("\n")


def _drawing(width: int, lines: int) -> Any:
    """An empty one. The library is imported here, since only this command needs it."""
    plotext: Any = import_module("plotext")
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, lines)
    return plotext
