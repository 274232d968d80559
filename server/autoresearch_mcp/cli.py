"""The command line: make and serve a workspace, look at it, tend it. What the agent may do is in app.py, not here."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.looking import card, dashboard, export, follow, plot, watch
from autoresearch_mcp.morning import ablate, calibrate, finalize, reproduce, verify
from autoresearch_mcp.options import (
    JsonOption,
    PresetOption,
    SessionOption,
    TaskOption,
    WorkspaceOption,
    make_where_missing,
    open_session,
    preset_for,
    say,
)
from autoresearch_mcp.sending import notify
from autoresearch_mcp.serving import serve
from autoresearch_mcp.task import PROGRAM
from autoresearch_mcp.text import format_score
from autoresearch_mcp.writing import attempt, doctor, new_task, programs

app = typer.Typer(
    name="autoresearch-mcp",
    help="Let a coding agent improve one file against one metric, by rules it cannot bend.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        say(f"autoresearch-mcp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="New or empty folder.")],
    task: TaskOption = "default",
    preset: PresetOption = "auto",
) -> None:
    """Make a workspace: a git repository from a task."""
    from autoresearch_mcp.create import create

    workspace = create(directory, task, preset_for(task, preset))
    made = workspace.task_at(workspace.head())
    say(f"workspace:  {workspace.root}")
    say(f"task:       {made.name}" + (f", preset {made.preset}" if made.preset else ""))
    say(f"next:       autoresearch-mcp {'prepare' if made.data.prepare else 'connect claude-code'} --workspace {directory}")


@app.command()
def prepare(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    force: Annotated[bool, typer.Option(help="Make it anew.")] = False,
    text: Annotated[
        Path | None, typer.Option(help="Folder of your own .txt, .md, .jsonl or .parquet files to make it from.")
    ] = None,
) -> None:
    """Get the task's data ready: that of a session, before there is one that of the last commit."""
    from autoresearch_mcp.create import text_of
    from autoresearch_mcp.loop.session import open_ledger
    from autoresearch_mcp.workspace import Workspace

    opened = Workspace(workspace)
    sessions = open_ledger(opened).state().sessions
    if text is not None and session is not None:
        raise AutoresearchError("A session keeps the data that it has. Leave --session out: a new session has your text.")
    started = text is None and (session is not None or sessions)
    with text_of(opened, text) if text is not None else nullcontext():
        data = open_session(workspace, session).data if started else opened.data()
        if not data.needed:
            say("data:       the task needs none")
            return
        data.prepare(opened.root, force)
    if text is not None and sessions:
        say(
            f"next:       autoresearch-mcp serve --session NAME --workspace {workspace}   (a new one; those before keep their data)"
        )


app.command()(serve)


@app.command()
def connect(
    client: Annotated[str, typer.Argument(help="claude-code, codex, claude-desktop, cursor, vscode or gemini.")],
    workspace: WorkspaceOption = Path(),
    folder: Annotated[Path | None, typer.Option(help="Where the agent is started, if not in the workspace.")] = None,
    url: Annotated[str | None, typer.Option("--http", help="URL of a server that runs with `serve --http`.")] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Show what would be written; write nothing.")] = False,
) -> None:
    """Tell a client of this workspace's server, and leave its agent no other tool. Merges; keeps backups."""
    from autoresearch_mcp.connect import CLIENTS, Server, plan, skill, stdio_command, write

    if not only_print:  # settings in an empty folder would keep serve from making the workspace there
        make_where_missing(workspace, "default", "auto")
    token = None
    if url is not None:
        from autoresearch_mcp.workspace import Workspace

        token = Workspace(workspace).bearer_token()
    place = folder or workspace
    program = workspace / PROGRAM
    edits = plan(client, Server(stdio_command(workspace), url, token), place)
    if program.is_file():
        edits += skill(client, place, program.read_text(encoding="utf-8", errors="replace"))
    if only_print:
        for edit in edits:
            say(f"# {edit.path}\n{edit.after}")
        return
    backups = write(edits)
    for edit in edits:
        say(f"{'as it was' if edit.before == edit.after else 'written'}:".ljust(12) + str(edit.path))
        if edit.private:
            say("            it holds the token: keep it out of git")
    for backup in backups:
        say(f"backup:     {backup}")
    say(f"start:      {CLIENTS[client].how_to_start(place)}")


@app.command()
def night(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After --: what starts the agent, or more options for --with. The prompt is its input, or {prompt}."),
    ] = None,
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    client: Annotated[str | None, typer.Option("--with", help="claude-code, codex or gemini, with our tools alone.")] = None,
    hours: Annotated[float, typer.Option(min=0, max=24 * 30, help="When the night is over.")] = 8.0,
    stall: Annotated[
        float, typer.Option(min=0, help="Minutes without a call, while no run is on, after which the agent is started afresh.")
    ] = 15.0,
) -> None:
    """Keep an agent at work while you sleep: start it without a terminal, and again whenever it ends or stands still."""
    from autoresearch_mcp.night.night import run_night

    make_where_missing(workspace, "default", "auto")
    run_night(workspace, session, client, command or [], hours, stall * 60)


@app.command()
def demo(directory: Annotated[Path | None, typer.Argument(help="Folder to make; a temporary one if left out.")] = None) -> None:
    """Watch a scripted client run the loop on a tiny language model: about a minute on two cores."""
    import tempfile

    from autoresearch_mcp.demo import run_demo

    run_demo(directory or Path(tempfile.mkdtemp(prefix="autoresearch-demo-")) / "workspace")


@app.command()
def status(workspace: WorkspaceOption = Path(), session: SessionOption = None, as_json: JsonOption = False) -> None:
    """Where the loop stands, with what only you may see: the sealed holdout."""
    from autoresearch_mcp.views import build
    from autoresearch_mcp.views.answers import shortened
    from autoresearch_mcp.views.figures import of_night

    opened = open_session(workspace, session)
    answer, token = build.status(opened), opened.workspace.known_token()
    sealed, first = build.mean_holdout(opened.state.best), build.mean_holdout(opened.state.baseline)
    if as_json:
        content = shortened(answer.model_dump(mode="json")) | {
            "best_holdout": sealed,
            "baseline_holdout": first,
            "http_token": token,
        }
        say(json.dumps(content, indent=1))
        return
    say(answer.text())
    for line in of_night(opened.state, opened.executor.in_use()):
        say(line)
    if sealed is not None and first is not None:
        say(f"Holdout (never shown to the agent): baseline {format_score(first)}, best {format_score(sealed)}")
    if token is not None:
        say(f"HTTP bearer token (keep it to yourself): {token}")
    if opened.state.best:
        say(f"To take the result: git merge {opened.state.started.branch}")


@app.command()
def log(
    experiment: Annotated[int | None, typer.Argument(help="Show this experiment in full, with its output.")] = None,
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    as_json: JsonOption = False,
) -> None:
    """All experiments of a session, or one in full."""
    from autoresearch_mcp.record.exports import export_json
    from autoresearch_mcp.views import build, references
    from autoresearch_mcp.views.terminal import console, experiments_table

    opened = open_session(workspace, session)
    if as_json:
        rows = [row for row in export_json(opened.ledger.state(), sealed=True) if row["session"] == opened.tag]
        say(json.dumps([row for row in rows if experiment in (None, row["experiment"])], indent=1))
    elif experiment is None:
        console().print(experiments_table(opened))
    else:
        say(build.result(opened, experiment).body())
        say(references.diff(opened, experiment), end="")
        say(references.log(opened, experiment))
        say(f"scoring:\n{references.output_of_scoring(opened, opened.experiment(experiment))}")


app.command()(dashboard)
app.command()(watch)
app.command()(plot)
app.command()(card)
app.command()(export)
app.command()(follow)
app.command()(notify)


@app.command()
def stop(
    workspace: WorkspaceOption = Path(),
    session: SessionOption = None,
    only_night: Annotated[
        bool, typer.Option("--night", help="End the night, and leave a run that is on; a second time: its closing commands too.")
    ] = False,
) -> None:
    """End the run that is on; it is recorded as killed. Or end the night."""
    if only_night:
        from autoresearch_mcp.night.night import ask_to_stop
        from autoresearch_mcp.workspace import Workspace

        ask_to_stop(Workspace(workspace))
        say("stopping the night")
        return
    opened = open_session(workspace, session)
    say(f"stopping experiment {opened.stop(for_human=True).number}")


app.command()(doctor)
app.command("new-task")(new_task)
app.command("try")(attempt)
app.command()(programs)
app.command()(verify)
app.command()(ablate)
app.command()(finalize)
app.command()(reproduce)
app.command()(calibrate)


def main() -> NoReturn:
    """Entry point: errors that a person can mend are one message, not a traceback."""
    try:
        app()
    except AutoresearchError as error:
        say(f"autoresearch-mcp: {error}", file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"autoresearch-mcp: {error}. Check disk space and permissions; `autoresearch-mcp doctor` says more.", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
