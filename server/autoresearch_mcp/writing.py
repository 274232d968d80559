"""What people do who write a task: begin one, try it without an agent. Commands of the command line, as cli.py adds them."""

import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.options import JsonOption, WorkspaceOption, say
from autoresearch_mcp.text import format_score, spaced, visible

if TYPE_CHECKING:
    from autoresearch_mcp.loop.trial import Tell
    from autoresearch_mcp.run.progress import Progress

FolderOption = Annotated[Path, typer.Option("--workspace", help="Folder with an autoresearch.toml; it need be no workspace.")]


def attempt(
    workspace: FolderOption = Path(),
    runs: Annotated[int, typer.Option(min=1, max=100, help="How often, to see the noise.")] = 1,
    file: Annotated[Path | None, typer.Option(help="Try this file in the place of the editable one.")] = None,
    preset: Annotated[str | None, typer.Option(help="One of the task's presets.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run and score the file as it lies there, without agent, session or record: to debug a task, or to look before a commit."""
    from autoresearch_mcp.loop.bars import beyond
    from autoresearch_mcp.loop.trial import Tried, in_silence, run_trial
    from autoresearch_mcp.run.sandbox import detect

    if detect().level == "none":
        text = "warning: no sandbox here. What the file does, it does as you, to all that is yours. `doctor` says how to get one"
        say(text, file=sys.stderr)
    if file is not None and not file.is_file():
        raise TaskError(f"{file} is no file. Name the one to try in the place of the editable one.")
    _end_with_the_run()
    tell = in_silence if as_json else _telling(runs)
    trial = run_trial(workspace.expanduser().absolute(), runs, preset, file.read_bytes() if file else None, tell)
    metric, failed = trial.task.metric, [tried for tried in trial.runs if tried.ended.score is None]
    unit = spaced(metric.unit)
    if as_json:
        content = {"metric": metric.name, "scores": trial.scores, "noise": trial.noise, "changed": trial.changed}
        say(json.dumps(content | {"runs": [tried.ended.model_dump(mode="json") for tried in trial.runs]}, indent=1))
        raise typer.Exit(1 if failed or trial.changed else 0)

    def show(tried: Tried) -> None:
        ended = tried.ended
        if ended.score is not None:
            say(f"{metric.name}:".ljust(12) + f"{format_score(ended.score)}{unit} ({metric.direction})")
        else:
            say(f"{ended.outcome}:".ljust(12) + f"{ended.failure}\n{visible(ended.excerpt)}")
        if ended.holdout is not None:
            say(f"holdout:    {format_score(ended.holdout)}{unit}")
        for name, value in ended.details.items():
            say(f"            {name}: {format_score(value)}")
        for name, said in ended.checks.items():
            say(f"check:      {name}: {visible(said) or 'passed'}")
        for figure in trial.task.secondary:
            value = ended.details.get(figure.name)
            if ended.score is not None and (why := beyond(figure, value, value)) is not None:
                say(f"limit:      {why}: such a change is not kept")

    for tried in trial.runs:
        show(tried)
    last = trial.runs[-1]
    for title, text in (("printed", last.output), ("scoring", last.scoring)):
        if text.strip():
            say(f"{title}:".ljust(12) + visible(text.rstrip("\n")).replace("\n", "\n            "))
    for refusal in last.refused:
        say(f"refused:    {refusal}")
    say("seconds:    " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in last.ended.seconds.items()))
    say(f"sandbox:    {last.ended.enforcement}; peak memory {last.ended.peak_memory_mb or 0:.0f} MiB; {last.ended.hardware}")
    if trial.noise is not None:
        deviation = f"{format_score(trial.noise)}{unit} a run (standard deviation)"
        noise = deviation if trial.noise else "none: the scores are equal"
        say(f"noise:      {noise}; mean {format_score(trial.mean)}{unit} of {len(trial.scores)} runs")
    if trial.changed:
        say(f"changed:    {', '.join(trial.changed)}: no run and no scoring may change what it is made from", file=sys.stderr)
    if failed or trial.changed:
        raise typer.Exit(1)


def _end_with_the_run() -> None:
    """A signal that ends this process ends its run first, as Ctrl-C does: else it would go on without anybody to tell."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _telling(runs: int) -> "Tell":
    """Says each phase of each run on standard error, once."""
    shown = ""

    def tell(number: int, progress: "Progress") -> None:
        nonlocal shown
        at = f"run {number + 1} of {runs}: {progress.phase}"
        if at != shown:
            say(at, file=sys.stderr)
            shown = at

    return tell


def new_task(
    directory: Annotated[Path, typer.Argument(help="Folder of the task: a new one, or one that has the file.")],
    file: Annotated[str | None, typer.Option(help="The file that the agent shall improve.")] = None,
    goal: Annotated[str | None, typer.Option(help="What for, in a sentence.")] = None,
    metric: Annotated[str | None, typer.Option(help="What the number is called.")] = None,
    direction: Annotated[str | None, typer.Option(help="minimize or maximize.")] = None,
    score: Annotated[str | None, typer.Option(help="Command that prints the number; a script to begin with if left out.")] = None,
    run: Annotated[str | None, typer.Option(help="Command to run before; nothing is run if left out.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="A file that the run leaves for scoring.")] = None,
    read_only: Annotated[list[str] | None, typer.Option(help="A file, folder or pattern that scoring needs.")] = None,
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds a run may take.")] = 60.0,
    unit: Annotated[str, typer.Option(help="Of the number.")] = "",
) -> None:
    """Write a first task: asks for what is not said, adds files, changes none."""
    from autoresearch_mcp.new_task import SCORE, Wish, files_of, write

    folder = directory.expanduser().absolute()
    asks = sys.stdin.isatty()

    def known(given: str | None, question: str, default: str) -> str:
        if given is not None:
            return given
        if asks:
            return typer.prompt(question, default=default)
        if default:
            say(f"assumed:    {question}: {default}")
        return default

    first = next((path.name for path in sorted(folder.glob("*.*")) if path.is_file() and path.name != SCORE), "notes.md")
    chosen = known(file, "File to improve", first)
    called = known(metric, "Name of the number", "score")
    way = known(direction, "Which way is better (minimize or maximize)", "maximize")
    wanted = known(goal, "Goal, in a sentence", f"{'Raise' if way == 'maximize' else 'Lower'} {called} of {chosen}.")
    scored = known(score, f"Command that prints it (empty: {SCORE} is written to begin with)", "")
    ran = known(run, "Command to run before (empty: none)", "")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:40] or "task"
    wish = Wish(name, wanted, chosen, called, way, scored, ran, output or (), read_only or (), budget, unit)
    for path in write(folder, files_of(folder, wish)):
        say(f"written:    {path}")
    say(f"look:       autoresearch-mcp try --workspace {directory}")
    if (folder / ".git").exists():
        say(f"then:       commit them, and: autoresearch-mcp connect claude-code --workspace {directory}")
    else:
        say(f"then:       autoresearch-mcp init WORKSPACE --task {directory}")


def programs(workspace: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Compare the sessions of a workspace by the program.md that they worked by: gain an hour, with its interval."""
    from dataclasses import asdict

    from rich.table import Table

    from autoresearch_mcp.loop.session import open_ledger
    from autoresearch_mcp.views.programs import programs
    from autoresearch_mcp.views.terminal import console
    from autoresearch_mcp.workspace import Workspace

    opened = Workspace(workspace)
    found = programs(opened, open_ledger(opened).state().sessions)
    if as_json:
        say(json.dumps([asdict(program) for program in found], indent=1))
        return
    table = Table(title=f"{len(found)} programs")
    for name in ("program.md", "sessions", "experiments", "kept", "hours", "gain an hour ± 95 %", "verified"):
        table.add_column(name, justify="left" if name in ("program.md", "sessions") else "right")
    for program in found:
        numbers = (str(program.experiments), str(program.kept), f"{program.hours:.2f}", program.rate_in_words)
        verified = f"{program.verified} of {len(program.sessions)}"
        table.add_row(program.digest or "none", ", ".join(program.sessions), *numbers, verified)
    console().print(table)


def doctor(
    workspace: WorkspaceOption = Path(),
    score: Annotated[
        bool | None,
        typer.Option("--score/--no-score", help="Run and score the file twice. If left out: where a run takes at most 10 s."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check git, Python packages, device, sandbox, workspace, data and metric, and say how to mend what is wrong."""
    from autoresearch_mcp.doctor import examine
    from autoresearch_mcp.loop.trial import in_silence

    _end_with_the_run()
    checks = examine(workspace, score, in_silence if as_json else _telling(2))
    if as_json:
        say(json.dumps([check.model_dump() for check in checks], indent=1))
    else:
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False, soft_wrap=True)
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        for check in checks:
            console.print(Text(f"{check.level:<8}", style=colours[check.level]), end=" ")
            console.print(f"{check.name + ':':<11} {visible(check.found)}", markup=False)
            if check.fix:
                console.print(f"{'':<21}fix: {visible(check.fix)}", markup=False)
    if any(check.level == "error" for check in checks):
        raise typer.Exit(1)
