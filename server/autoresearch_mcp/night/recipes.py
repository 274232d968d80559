"""How an agent is started where nobody looks on: the program, the locked settings that `connect` knows, and no dialog.

The prompt goes to its standard input, which then ends, so that nothing can wait for an answer. For Claude Code and Codex everything
stands on the command line and no file is written. Gemini CLI takes its settings from files alone: they are written as `connect`
writes them, into the workspace, and it is told to trust that folder.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch_mcp import connect
from autoresearch_mcp.errors import AutoresearchError

PROMPT = "{prompt}"  # in a command of the user's: where the prompt stands, if not on standard input


@dataclass(frozen=True)
class Recipe:
    """What is started in the workspace's folder."""

    command: list[str]
    variables: dict[str, str] = field(default_factory=dict[str, str])
    """Added to the user's own environment."""

    def with_prompt(self, prompt: str) -> tuple[list[str], str]:
        """The command line, and what goes to its standard input."""
        if not any(PROMPT in part for part in self.command):
            return self.command, prompt
        return [part.replace(PROMPT, prompt) for part in self.command], ""


def claude_code(server: connect.Server, folder: Path) -> Recipe:
    """https://code.claude.com/docs/en/cli-reference. The user's own settings hold (a key, a model); the project's are left out, for
    of a folder never trusted it would take a part and warn about the rest.
    """
    servers, settings = connect.claude_code(server, folder, Path.home())
    options = ["--setting-sources", "user", "--settings", json.dumps(settings.content)]
    options += ["--strict-mcp-config", "--mcp-config", json.dumps(servers.content)]
    return Recipe(["claude", "-p", *options, *connect.CLIENTS["claude-code"].options])


def codex(server: connect.Server, folder: Path) -> Recipe:
    """https://developers.openai.com/codex/noninteractive: every key of the profile as an option; `-` reads the prompt."""
    (profile,) = connect.codex(server, folder, Path.home())
    options = [part for key, value in _flat(profile.content) for part in ("-c", f"{key}={json.dumps(value, ensure_ascii=False)}")]
    return Recipe(["codex", "exec", "--skip-git-repo-check", *options])


def gemini(server: connect.Server, folder: Path) -> Recipe:
    """https://geminicli.com/docs/cli/trusted-folders: without trust it reads no settings of the folder, and has no tool of ours.
    Its option --skip-trust comes too late for them (0.61).
    """
    connect.write(connect.plan("gemini", server, folder))
    return Recipe(["gemini"], {"GEMINI_CLI_TRUST_WORKSPACE": "true"})


RECIPES: dict[str, Callable[[connect.Server, Path], Recipe]] = {"claude-code": claude_code, "codex": codex, "gemini": gemini}


def recipe(name: str | None, added: list[str], folder: Path, tag: str) -> Recipe:
    """What the night starts: a client by its name with options `added` to it, or the command that the user gave. Raises
    AutoresearchError where there is no such client or program.
    """
    if name is None:
        made = Recipe(added)
    elif name in RECIPES:
        server = connect.Server([*connect.stdio_command(folder), "--session", tag])
        made = RECIPES[name](server, folder)
        made = Recipe([*made.command, *added, *(["-"] if name == "codex" else [])], made.variables)
    else:
        raise AutoresearchError(
            f"There is no recipe for {name!r}. Choose one of: {', '.join(RECIPES)}; or give a command after --."
        )
    if not made.command:
        raise AutoresearchError(
            f"Nothing to start was given. Add --with and one of: {', '.join(RECIPES)}; or a command after --, as in: -- claude -p"
        )
    if (program := shutil.which(made.command[0])) is None:
        raise AutoresearchError(f"The program {made.command[0]!r} is not found. Install it, or give its whole path after --.")
    return Recipe([str(Path(program).absolute()), *made.command[1:]], made.variables)


def _flat(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a table by their dotted keys, as Codex takes them; JSON writes texts, lists and truth values as TOML does."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{above}{key}", value
