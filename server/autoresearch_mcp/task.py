"""autoresearch.toml as pydantic models: what is edited, how it runs, what is measured, within which budget."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import sys
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.patterns import check
from autoresearch_mcp.sections import FAILURES, Check, Data, Files, Limits, Metric, Notify, Run, Sandbox, Secondary, Section

TASK_FILE = "autoresearch.toml"
PROGRAM = "program.md"  # the human's instructions to the agent
FIXED_TOOLS = frozenset({"read_reference", "get_status"})  # names that the naming rule must not make


class Task(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
    """Of the task; its prepared data is cached under it."""
    goal: str = Field(min_length=1, max_length=500)
    """What the agent is told to achieve, in a sentence."""
    preset: str | None = None
    """Which of [presets] applies; `init` pins it here."""
    files: Files
    """What the agent edits, and what it can only read."""
    run: Run = Run()
    """What happens before the score: the command, its clock and its outputs."""
    metric: Metric
    """The number, and the trusted command that computes it."""
    checks: list[Check] = Field(default=[])
    """Commands that must pass before a change is kept: tests, a linter."""
    secondary: list[Secondary] = Field(default=[])
    """Figures shown beside the score, whose limits must hold before a change is kept."""
    data: Data = Data()
    """What is prepared once, outside the repository, and who may see which part of it."""
    sandbox: Sandbox = Sandbox()
    """What a run may use, and how well it must be confined."""
    limits: Limits = Limits()
    """When a session is done."""
    notify: Notify = Notify()
    """What tells you of it, and of what goes on before."""
    failures: dict[str, str] = Field(default={})
    """Regular expressions by failure name: a run without a score is named by the first one that its log matches."""
    presets: dict[str, dict[str, Any]] = Field(default={})
    """Variants by name: tables of the keys that differ, laid over the rest where `preset` names them. `like` in one names another
    that it is laid over first."""

    @field_validator("failures")
    @classmethod
    def _failures(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            if name not in FAILURES:
                raise ValueError(f"{name!r} is no failure name; use one of {', '.join(FAILURES)}")
            check(pattern)
        return patterns

    @model_validator(mode="after")
    def _names(self) -> "Task":
        if self.files.editable in (*self.files.read_only, TASK_FILE):
            raise ValueError(f"files.editable ({self.files.editable}) is also read-only; it must be one or the other")
        if self.files.editable in [part.removeprefix("./") for part in self.metric.command[:2]]:
            raise ValueError(f"metric.command runs {self.files.editable}, the edited file: it would say its own score")
        if own := [name for name in self.run.outputs if name in (self.files.editable, *self.files.read_only)]:
            raise ValueError(f"run.outputs names {own[0]}, which the task lays out itself: a run would replace it")
        names = [check.name for check in self.checks]
        figures = [figure.name for figure in self.secondary]
        if twice := next((name for name in (*names, *figures) if names.count(name) > 1 or figures.count(name) > 1), None):
            raise ValueError(f"{twice!r} is the name of two; give each check and each secondary metric one of its own")
        if self.read_tool in FIXED_TOOLS or self.get_tool in FIXED_TOOLS:
            raise ValueError(f"the tools would be named {self.read_tool} and {self.get_tool}, which collides; rename one")
        return self

    @model_validator(mode="after")
    def _declaration(self) -> "Task":
        if self.run.declares and not (self.metric.starts_early and self.data.train):
            raise ValueError("run.declares needs metric.starts_early = true, and data.train for the run to wait for")
        return self

    @model_validator(mode="after")
    def _compiled(self) -> "Task":
        if self.run.compiled and not self.data.train:
            raise ValueError("run.compiled needs data.train: a run for compiling alone is one that has not been given data yet")
        return self

    @model_validator(mode="after")
    def _preload(self) -> "Task":
        command = self.run.command or []
        if self.run.preload and (command[:1] != ["{python}"] or len(command) < 2 or command[1].startswith("-")):
            raise ValueError('run.preload is for a run.command of ["{python}", FILE, ...]: what waits with the modules runs a file')
        return self

    @property
    def read_tool(self) -> str:
        """read_<stem of the editable file>"""
        stem = re.sub(r"[^a-z0-9]+", "_", PurePosixPath(self.files.editable).stem.lower()).strip("_")
        return f"read_{stem or 'file'}"

    @property
    def get_tool(self) -> str:
        """get_<metric>"""
        return f"get_{self.metric.name}"

    @property
    def outdated(self) -> str | None:
        """Why a workspace of an earlier version cannot be scored any more; None where this one can."""
        ours = any(part.startswith("autoresearch_mcp.evaluate.") for part in self.metric.command)
        if not ours or self.run.declares is not None:
            return None
        return (
            "this workspace is of an earlier version, whose runs did not declare their model before training, so that a score "
            "could be forged. Make another with `autoresearch-mcp init`, put your train.py there with a call of declare(model) "
            "before make_dataloader (docs/moving-over.md), and start a session in it"
        )

    @property
    def sha256(self) -> str:
        """Hash of what the task means; comments and layout of the TOML do not count."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


MOST_FILES = 2000  # that files.read_only may stand for


def with_read_only(task: Task, files: dict[str, list[str]]) -> Task:
    """The task with each folder or pattern of files.read_only replaced by the files that it stands for. Raises TaskError."""
    named: dict[str, None] = {}
    for entry in task.files.read_only:
        listed = files.get(entry, [entry])
        if not listed:
            raise TaskError(f"files.read_only names {entry}, and no file is that, is in it or matches it. Correct it.")
        named |= dict.fromkeys(path for path in listed if entry not in files or path not in (task.files.editable, TASK_FILE))
    if own := [name for name in task.run.outputs if name in named]:
        raise TaskError(f"run.outputs names {own[0]}, which files.read_only stands for: a run would replace it. Rename one.")
    if len(named) > MOST_FILES:
        raise TaskError(f"files.read_only stands for {len(named)} files; at most {MOST_FILES} are laid out for a run. Name fewer.")
    return task.model_copy(update={"files": task.files.model_copy(update={"read_only": list(named)})})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], cast("dict[str, Any]", value)) if both else value
    return merged


def _laid_over(presets: dict[str, dict[str, Any]], name: str, source: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a preset, over those of the one that it is like. Raises TaskError."""
    tables = presets[name]
    like: Any = tables.get("like")
    if like is None:
        return tables
    known = isinstance(like, str) and like in presets
    if not known or like in (*above, name):
        wrong = "which is like it" if known else "and there is no such preset"
        raise TaskError(f"{source}: presets.{name} is like {like!r}, {wrong}. Name one of: {', '.join(presets)}.")
    rest = {key: value for key, value in tables.items() if key != "like"}
    return _merge(_laid_over(presets, like, source, (*above, name)), rest)


def parse_task(text: str, source: str = TASK_FILE) -> Task:
    """Validates the text of an autoresearch.toml, its preset applied. `source` is how messages name it.

    Raises TaskError with the line and what to do.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{source} is not valid TOML: {error}. Fix that line and try again.") from error
    presets: Any = raw.get("presets", {})
    preset: Any = raw.get("preset")
    merged = raw
    where = ""
    if preset is not None and isinstance(presets, dict):
        presets = cast("dict[str, dict[str, Any]]", presets)
        if preset not in presets:
            names = ", ".join(presets) or "none are defined"
            line = _line_of(text, ("preset",))
            raise TaskError(f"{source}, line {line}: preset is {preset!r}, but [presets] has: {names}. Name one of those.")
        merged = _merge(raw, _laid_over(presets, preset, source))
        where = f" (preset {preset})"
    try:
        task = Task.model_validate(merged)
        seconds = task.metric.timeout_seconds or task.run.evaluate_seconds
        return task.model_copy(update={"run": task.run.model_copy(update={"evaluate_seconds": seconds})})
    except ValidationError as error:
        problems: list[str] = []
        for item in error.errors()[:5]:
            location = tuple(str(part) for part in item["loc"])
            line = _line_of(text, location) or (_line_of(text, ("presets", str(preset), *location)) if preset else None)
            reason = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                reason = "no such key; remove it or correct its spelling"
            elif item["type"] == "missing":
                reason = "this key is required; add it"
            at = f", line {line}" if line else ""
            problems.append(f"{source}{at}{where}: {'.'.join(location) or 'task'}: {reason}")
        raise TaskError("\n".join(problems)) from error


def _line_of(text: str, location: tuple[str, ...]) -> int | None:
    """Line (from 1) of the key at `location`, else of its nearest enclosing table."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None  # (depth matched, line)
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+([^\[\]]+)\]+", line)
        key = re.match(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""", line)
        if header:
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            path = table
        elif key:
            path = (*table, *key.group(1).split("."))
        else:
            continue
        if path == location[: len(path)] and (best is None or len(path) > best[0]):
            best = (len(path), number)
    return best[1] if best else None


WORD = re.compile(r"\{(\w+)\}")


def expand(command: list[str], **values: str) -> list[str]:
    """Fills {python}, {data} and the like into a command. An argument that is nothing but `{name}` is the program of that name,
    where there is one on PATH; other braces stay as they are.
    """
    values = {"python": sys.executable, **values}
    return [program(part) or WORD.sub(lambda match: values.get(match.group(1), match.group(0)), part) for part in command]


KNOWN = frozenset({"python", "preset", "data", "seed", "file"})  # what in braces is no program


def program(part: str) -> str | None:
    """Where the program lies that a part of a command names: `{node}`; None where it names none, or there is none."""
    found = WORD.fullmatch(part)
    return shutil.which(found.group(1)) if found and found.group(1) not in KNOWN else None


def programs(task: Task) -> dict[str, str | None]:
    """The programs that the commands of a task name in braces, and where they lie; None for one that is not there."""
    commands = [task.run.command, task.metric.command, task.data.prepare, *(each.command for each in task.checks)]
    parts = [part for command in commands if command for part in command]
    named = [found.group(1) for part in parts if (found := WORD.fullmatch(part)) and found.group(1) not in KNOWN]
    return {name: shutil.which(name) for name in named}


def not_installed(task: Task) -> list[str]:
    """Those of run.packages that this environment lacks."""
    missing: list[str] = []
    for name in task.run.packages:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing


@cache
def torch_version() -> str:
    """Of the torch that runs import, without importing it; empty where there is none."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def lacking(packages: list[str]) -> str:
    """What to do about packages that are listed and not installed."""
    names = " ".join(packages)
    return (
        f"[run] packages lists {names}, which is not installed beside the server. Run: {sys.executable} -m pip install {names}; "
        f"or correct the name in {TASK_FILE}."
    )


def bundled_tasks() -> dict[str, Path]:
    """Tasks that come with the package, by name: the default one and the examples."""
    package = Path(__file__).parent
    roots = [package / "tasks", package.parent.parent]  # of an installed wheel, of a source checkout
    found: dict[str, Path] = {}
    for root in roots:
        if (root / "harness" / TASK_FILE).exists():
            found["default"] = root / "harness"
            for example in sorted((root / "examples").glob(f"*/{TASK_FILE}")):
                found[example.parent.name] = example.parent
            break
    return found
