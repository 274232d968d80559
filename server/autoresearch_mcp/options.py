"""What the commands share: their common options, how they speak, and how they open a session."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from autoresearch_mcp.text import visible

if TYPE_CHECKING:
    from autoresearch_mcp.loop.session import Session

WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder of the workspace.")]
SessionOption = Annotated[str | None, typer.Option("--session", "-s", help="Line of research; the latest if left out.")]
PresetOption = Annotated[str, typer.Option(help="auto, which fits this machine, or one of the task's presets, as cpu or gpu-24.")]
TaskOption = Annotated[str, typer.Option(help="Name of a bundled task, or a folder with an autoresearch.toml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Every line of a command's: with nothing in it that a terminal would obey, whoever wrote what it tells of."""
    print(visible(text), end=end, file=file, flush=flush)


def open_session(workspace: Path, tag: str | None) -> "Session":
    """A session as it is; nothing is started by looking."""
    from autoresearch_mcp.loop.session import Session, open_ledger
    from autoresearch_mcp.workspace import Workspace

    opened = Workspace(workspace)
    return Session.open(opened, open_ledger(opened), tag)


def preset_for(task: str, wanted: str) -> str | None:
    """The preset that was asked for, or that fits this machine; None where the task has none."""
    from autoresearch_mcp.create import presets_of
    from autoresearch_mcp.run.fitting import fitting

    return wanted if wanted != "auto" else fitting(presets_of(task))


def make_where_missing(workspace: Path, task: str, preset: str) -> None:
    """Makes the workspace where the folder is absent or empty."""
    from autoresearch_mcp.create import create, is_free

    if is_free(workspace):
        create(workspace, task, preset_for(task, preset))
