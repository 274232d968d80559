"""The command that serves the tools, over stdio or HTTP."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.options import PresetOption, SessionOption, TaskOption, WorkspaceOption, make_where_missing, say

if TYPE_CHECKING:
    from autoresearch_mcp.loop.session import Session


def serve(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    task: TaskOption = "default",
    preset: PresetOption = "auto",
    over_http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP, with a bearer token, instead of stdio.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address for --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --http; 0 takes a free one.")] = 8377,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let --http listen beyond this machine.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name, besides its address, that remote clients use for this machine.")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="Where runs take place, whatever the task says: local or ray.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--address", help="Of the Ray cluster: auto, HOST:PORT, ray://HOST:PORT or http://HOST:PORT.")
    ] = None,
) -> None:
    """Serve the tools. Makes the workspace where the folder is absent or empty, and prepares data that is missing."""
    import gc

    gc.disable()  # imports and the ledger make many objects that live on: collecting among them costs a tenth of the start-up time
    from autoresearch_mcp.executors import chosen

    os.environ |= {name: value for name, value in ((chosen.SETTING, executor), (chosen.ADDRESS, cluster)) if value is not None}
    make_where_missing(workspace, task, preset)
    from autoresearch_mcp.calls import log_to
    from autoresearch_mcp.loop.session import Session, open_ledger
    from autoresearch_mcp.workspace import Workspace

    try:
        opened = Workspace(workspace)
        log_to(opened.state_dir / "server.log")
        started = Session.start(opened, open_ledger(opened), session)
    except AutoresearchError as error:
        if over_http or sys.stdin.isatty():
            raise
        _serve_unavailable(error, lambda: Session.start(again := Workspace(workspace), open_ledger(again), session))
    if started.data.missing() and not started.data.in_preparation:
        _prepare_in_background(started)
    from autoresearch_mcp.app import build_server, by_session

    server = build_server(started)
    gc.enable()
    gc.freeze()
    if not over_http:
        server.run("stdio")
        return
    from autoresearch_mcp import dashboard, web
    from autoresearch_mcp.links import Links

    listening = web.listen(host, port, allow_remote)
    address, names = web.address_of(host, listening), web.names_of(host, allow_host or [])
    token, links = opened.bearer_token(), Links(opened)
    links.serve_at(address)
    say(f"serving:    {address}{web.PATH}", file=sys.stderr)
    say(f"token:      in {opened.token_path}; `autoresearch-mcp status` shows it", file=sys.stderr)
    say(f"page:       {links.to(address)}", file=sys.stderr)
    say("            It works once; for another link: autoresearch-mcp dashboard --link", file=sys.stderr, flush=True)
    page = dashboard.build_page(opened, dashboard.Access(names, links, token))
    web.serve(web.build_app(by_session(started, server), started.tag, token, names, page), listening)


def _serve_unavailable(error: AutoresearchError, attempt: Callable[[], object]) -> NoReturn:
    """Tells the client what is wrong, until it goes; the exit status says it too."""
    from autoresearch_mcp.unavailable import build_unavailable

    say(f"autoresearch-mcp: {error}", file=sys.stderr, flush=True)
    build_unavailable(str(error), attempt).run("stdio")
    raise SystemExit(1)


def _prepare_in_background(session: "Session") -> None:
    """Starts `prepare` on its own, so that a client that only knows `serve` gets its data too. Its output goes to a file."""
    import subprocess

    command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "prepare"]
    with open(session.workspace.state_dir / "prepare.log", "wb") as log:
        subprocess.Popen(
            [*command, "--workspace", str(session.workspace.root), "--session", session.tag],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
