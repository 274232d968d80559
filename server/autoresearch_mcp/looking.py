"""Commands for whoever looks: the page, the pictures, the terminal, the trackers. They read, and write what they are asked for."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.options import SessionOption, WorkspaceOption, open_session, say

FOLLOW_EVERY = 2.0  # seconds between looks
OutputOption = Annotated[Path | None, typer.Option(help="PNG, SVG or PDF; a PNG in the workspace if left out.")]


def dashboard(
    workspace: WorkspaceOption = Path(),
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8378,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let it listen beyond this machine.")] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name, besides its address, by which browsers reach it.")] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Show the sealed holdout too. Each choice by it wears it out.")] = False,
    without_link: Annotated[
        bool, typer.Option("--without-link", help="Let every program on this machine look: on loopback, for the workspace's owner.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Print another link to a page that is being served; serve nothing.")] = False,
) -> None:
    """Serve a page that shows the night live: chart, current run, every experiment, and the morning."""
    from autoresearch_mcp import dashboard, web
    from autoresearch_mcp.links import Links
    from autoresearch_mcp.workspace import Workspace

    opened = Workspace(workspace)
    links = Links(opened, sealed)
    if link:
        say(links.to(links.served()))
        return
    if without_link:
        _require_owner(opened.root, host, sealed)
    listening = web.listen(host, port, allow_remote)
    address = web.address_of(host, listening)
    access = dashboard.Access(web.names_of(host, allow_host or []), links, opened.known_token(), without_link, sealed)
    page = dashboard.build_page(opened, access, ready=True)
    links.serve_at(address)
    say(f"page:       {address if without_link else links.to(address)}")
    if not without_link:
        say("            It works once, for a quarter of an hour; for another: autoresearch-mcp dashboard --link")
    say("            Ctrl-C ends it.", flush=True)
    web.serve(page, listening)


def _require_owner(root: Path, host: str, sealed: bool) -> None:
    """Raises AutoresearchError unless whoever owns the workspace serves it to this machine alone, and nothing that is sealed."""
    from autoresearch_mcp.web import is_loopback

    if sealed:
        raise AutoresearchError("--sealed shows what no agent may see, so it wants its link. Leave --without-link out.")
    if not is_loopback(host):
        raise AutoresearchError(f"{host} can be reached from other machines. Leave --without-link out.")
    if hasattr(os, "getuid") and root.stat().st_uid != os.getuid():
        raise AutoresearchError(f"{root} belongs to another user, who alone may show it so. Leave --without-link out.")


def watch(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    rows: Annotated[int, typer.Option(help="Experiments shown.")] = 15,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
) -> None:
    """Follow the loop live in the terminal: progress, the run that is on with its curve, the latest experiments. Ctrl-C ends it."""
    from rich.live import Live

    from autoresearch_mcp.views.screen import Screen
    from autoresearch_mcp.views.terminal import console

    screen = Screen(open_session(workspace, session), rows)
    ends = None if seconds is None else time.monotonic() + seconds
    try:
        shown = console()
        with Live(screen.look(shown.size), console=shown, auto_refresh=False) as live:
            while ends is None or time.monotonic() < ends:
                time.sleep(0.5)
                if screen.has_changed(shown.size):
                    live.update(screen.look(shown.size), refresh=True)
    except KeyboardInterrupt:
        pass


def plot(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    output: OutputOption = None,
    curves: Annotated[bool, typer.Option("--curves", help="The learning curves of what was kept instead.")] = False,
) -> None:
    """Draw the progress picture: all experiments, the kept ones marked, the running best."""
    from autoresearch_mcp.views.plot import draw, draw_curves

    opened = open_session(workspace, session)
    target = output or opened.workspace.root / ("curves.png" if curves else "progress.png")
    if curves:
        draw_curves(opened, target)
    else:
        draw(opened.state, target)
    say(f"picture:    {target}")


def card(workspace: WorkspaceOption = Path(), session: SessionOption = None, output: OutputOption = None) -> None:
    """Draw a card to share, 1200 x 630: the curve, the figures, and how far they can be trusted."""
    from autoresearch_mcp.views.card import draw_card

    opened = open_session(workspace, session)
    target = output or opened.workspace.root / "card.png"
    draw_card(opened, target)
    say(f"card:       {target}")


# --- trackers ---------------------------------------------------------------------------------------------------------

ToOption = Annotated[str, typer.Option("--to", help="mlflow, wandb, tensorboard, csv or json.")]
WhereOption = Annotated[
    str | None, typer.Option("--where", help="A tracking URI, a folder or a file; in the workspace if left out.")
]
SealedOption = Annotated[bool, typer.Option("--sealed", help="With the sealed holdout. Each choice by it wears it out.")]


def export(
    to: ToOption,
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    where: WhereOption = None,
    sealed: SealedOption = False,
) -> None:
    """Put all experiments into MLflow, W&B, TensorBoard, CSV or JSON; again takes the place of what was there."""
    from autoresearch_mcp.views.trackers import refusing, told, tracker

    opened = open_session(workspace, session)
    target, count = tracker(to, opened, where), len(opened.state.experiments)
    for done, experiment in enumerate(opened.state.experiments, 1):
        with refusing(to):
            target.send(told(opened, experiment, sealed))
        _progress(f"{to}: {done} of {count}")
    target.close()
    say(f"{to}:".ljust(12) + f"{count} experiments of {opened.tag}")


def follow(
    to: ToOption,
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    where: WhereOption = None,
    sealed: SealedOption = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
) -> None:
    """Keep MLflow, W&B, TensorBoard, CSV or JSON up to date while the loop goes on. Ctrl-C ends it."""
    from autoresearch_mcp.views.trackers import refusing, told, tracker

    opened = open_session(workspace, session)
    target, sent = tracker(to, opened, where), dict[int, int]()
    ends = None if seconds is None else time.monotonic() + seconds
    say(f"{to}:".ljust(12) + f"following {opened.tag}; Ctrl-C ends it", flush=True)
    try:
        while True:
            new = [experiment for experiment in opened.state.experiments if sent.get(experiment.number) != experiment.version]
            for experiment in new:
                sent[experiment.number] = experiment.version  # before it is read: what comes meanwhile is sent the next time
                with refusing(to):
                    target.send(told(opened, experiment, sealed))
                say(f"experiment {experiment.number}: {experiment.label}", flush=True)
            if new:
                target.close()
            if ends is not None and time.monotonic() >= ends:
                return
            time.sleep(FOLLOW_EVERY)
    except KeyboardInterrupt:
        target.close()


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        say(f"{text:<40}", end="\r", file=sys.stderr, flush=True)
