"""A first task for a file: an autoresearch.toml with comments, a program.md to go on from, and what else is missing.

It only adds files: what is there already is never written over. Where nothing says how to score, it writes a scoring script that
measures something simple and says that it wants replacing; so what comes out runs at once, and is changed step by step.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.task import PROGRAM, TASK_FILE, parse_task

SCORE = "score.py"


@dataclass(frozen=True)
class Wish:
    """What a person says of the task."""

    name: str
    goal: str
    file: str
    metric: str
    direction: str
    score: str = ""
    """The scoring command, as typed in a shell; empty for a script to begin with."""
    run: str = ""
    """What is run before; empty where the file itself is scored."""
    outputs: Sequence[str] = ()
    read_only: Sequence[str] = ()
    budget: float = 60
    unit: str = ""


def command_of(line: str) -> list[str]:
    """A command as typed, with `python` as the interpreter of the server, and other programs by name."""
    try:
        first, *rest = shlex.split(line)
    except ValueError as error:
        raise TaskError(f"{line!r} is no command: {error or 'it is empty'}. Type it as in a shell, without pipes.") from error
    if "/" not in first and not first.startswith("{"):
        first = "{python}" if first in ("python", "python3") else f"{{{first}}}" if re.fullmatch(r"\w+", first) else first
    return [first, *rest]


def files_of(folder: Path, wish: Wish) -> dict[str, str]:
    """The files to add, by name, with what is in them. Raises TaskError where the wish makes no task."""
    added: dict[str, str] = {}
    if not (folder / wish.file).exists():
        added[wish.file] = _starting_file(wish)
    score, read_only = command_of(wish.score) if wish.score else ["{python}", SCORE], list(wish.read_only)
    if not wish.score and not (folder / SCORE).exists():
        added[SCORE] = _scoring_script(wish)
    named = [part for command in (score, command_of(wish.run) if wish.run else []) for part in command]
    for part in named:
        if part != wish.file and (part in added or (folder / part).is_file()) and part not in read_only and "/" not in part[:1]:
            read_only.append(part)
    added[TASK_FILE] = _toml(wish, score, read_only)
    if not (folder / PROGRAM).exists():
        added[PROGRAM] = _program(wish)
    parse_task(added[TASK_FILE], TASK_FILE)
    return added


def write(folder: Path, added: dict[str, str]) -> list[Path]:
    """Adds the files, all or none. Raises TaskError where one is there already."""
    if there := [name for name in added if (folder / name).exists()]:
        raise TaskError(f"{folder} has {', '.join(there)} already. Change that by hand, or name another folder.")
    written: list[Path] = []
    try:
        for name, text in added.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.encode())
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise TaskError(f"{folder} cannot be written to: {error.strerror}. Name a folder that you may write to.") from error
    return written


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _text(value: str) -> str:
    """A TOML string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in escaped) + '"'


def _toml(wish: Wish, score: list[str], read_only: list[str]) -> str:
    run = f"""
[run]
command = {_list(command_of(wish.run))}
outputs = {_list(wish.outputs)}  # files it leaves, which alone are handed to the scoring
budget_seconds = {wish.budget:g}
""" if wish.run else """
# Nothing is run: the file itself is scored. To run it first, within a budget:
# [run]
# command = ["{python}", "FILE"]
# outputs = ["RESULT"]
# budget_seconds = 60
"""  # fmt: skip
    unit = f"unit = {_text(wish.unit)}\n" if wish.unit else ""
    return f"""\
# What is improved, and how it is measured. Every key: docs/reference.md. Try it without an agent: autoresearch-mcp try
name = {_text(wish.name)}
goal = {_text(wish.goal)}

[files]
editable = {_text(wish.file)}  # the one file that the agent changes
read_only = {_list(read_only)}  # files, folders or patterns it can read and not change; no run has any other
{run}
[metric]
name = {_text(wish.metric)}
direction = {_text(wish.direction)}
{unit}command = {_list(score)}  # its last line is the score, or JSON like {{"score": 1.5, "details": {{"words": 12}}}}
# timeout_seconds = 300
# repeats = 5  # score one result several times and take the median: for a time that is measured

# Commands that must pass before a change is kept; {{file}} is the edited file, as data.
# [[checks]]
# name = "lint"
# command = ["{{python}}", "-m", "ruff", "check", "{{file}}"]

# A figure among the score's details that may not get worse than this.
# [[secondary]]
# name = "words"
# at_most = 500

# When a night is over.
# [limits]
# experiments = 100
# hours = 8
"""


def _program(wish: Wish) -> str:
    better = "larger" if wish.direction == "maximize" else "smaller"
    return f"""\
# program

You are a researcher who works alone, through the tools of this server, until a human stops you. This page is the human's word to
you; edit it to steer the research.

## Goal

{wish.goal}

The number is `{wish.metric}`: {better} is better. Nothing else counts. You change `{wish.file}` and no other file.

## What to know of this file

(Say here what the file is for, what a good one has, and what must stay as it is.)

## What to try

(Say here what an expert would try first, what has been tried without success, and what not to spend a night on.)

## The loop

1. `status` says where the loop stands and which step is allowed. The first run is the file as it is: the baseline.
2. Think of one idea. Read `history`, so that nothing is tried twice. Change one thing at a time.
3. `apply_patch`, `run_experiment` with a description and a hypothesis, `get_{wish.metric}` until the result is there.
4. Do what the verdict says, `keep` or `discard`, and write into `learned` what the result taught.
5. Go to 2. Do not stop, and do not ask.

A shorter file with the same score is an improvement too.
"""


def _starting_file(wish: Wish) -> str:
    comment = "#" if PurePosixPath(wish.file).suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".r") else ""
    return f"{comment} {wish.goal}\n".lstrip()


def _scoring_script(wish: Wish) -> str:
    return f"""\
# Scores {wish.file!r}. Replace what is measured: this counts words, as something to begin with.
# Read the file, never import or execute it: what it could run here could say any score (docs/tasks.md has how it is done).

import json
from pathlib import Path

text = Path({wish.file!r}).read_text(encoding="utf-8")
words = text.split()
print(json.dumps({{"score": len(set(words)), "details": {{"words": len(words)}}}}))
"""
