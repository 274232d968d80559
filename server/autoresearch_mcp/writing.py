"""What people do who write a task: try it without an agent. Commands of the command line, as cli.py adds them."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from autoresearch_mcp.options import JsonOption, say
from autoresearch_mcp.text import format_score, visible

FolderOption = Annotated[Path, typer.Option("--workspace", help="Folder with an autoresearch.toml; it need be no workspace.")]


def attempt(
    workspace: FolderOption = Path(),
    runs: Annotated[int, typer.Option(min=1, max=100, help="How often, to see the noise.")] = 1,
    file: Annotated[Path | None, typer.Option(help="Try this file in the place of the editable one.")] = None,
    preset: Annotated[str | None, typer.Option(help="One of the task's presets.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run and score the file as it lies there, without agent, session or record: to debug a task, or to look before a commit."""
    from autoresearch_mcp.loop.trial import Tried, run_trial
    from autoresearch_mcp.run.progress import Progress

    shown = ""

    def tell(number: int, progress: Progress) -> None:
        nonlocal shown
        at = f"run {number + 1} of {runs}: {progress.phase}"
        if at != shown and not as_json:
            say(at, file=sys.stderr)
            shown = at

    trial = run_trial(workspace.expanduser().absolute(), runs, preset, file.read_bytes() if file else None, tell)
    metric, failed = trial.task.metric, [tried for tried in trial.runs if tried.ended.score is None]
    unit = f" {metric.unit}" if metric.unit else ""
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

    for tried in trial.runs:
        show(tried)
    last = trial.runs[-1]
    for title, text in (("printed", last.output), ("scoring", last.scoring)):
        if text.strip():
            say(f"{title}:".ljust(12) + visible(text.rstrip("\n")).replace("\n", "\n            "))
    say("seconds:    " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in last.ended.seconds.items()))
    say(f"sandbox:    {last.ended.enforcement}; peak memory {last.ended.peak_memory_mb or 0:.0f} MiB; {last.ended.hardware}")
    if trial.noise is not None:
        noise = "none: the scores are equal" if trial.noise == 0 else f"{format_score(trial.noise)}{unit} a run (standard deviation)"
        say(f"noise:      {noise}; mean {format_score(trial.mean)}{unit} of {len(trial.scores)} runs")
    if trial.changed:
        say(f"changed:    {', '.join(trial.changed)}: no run and no scoring may change what it is made from", file=sys.stderr)
    if failed or trial.changed:
        raise typer.Exit(1)
