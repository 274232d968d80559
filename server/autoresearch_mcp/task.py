"""autoresearch.toml as pydantic models: what is edited, how it runs, what is measured, within which budget."""

import hashlib
import importlib.metadata
import json
import re
import sys
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.patterns import check

TASK_FILE = "autoresearch.toml"
OURS = "autoresearch-mcp"  # the distribution that this is
PROGRAM = "program.md"  # the human's instructions to the agent

FAILURES = [
    "oom",
    "nan",
    "diverged",
    "compile",
    "export",
    "not_causal",
    "timeout_startup",
    "timeout",
    "killed",
    "lost",
    "pruned",
    "error",
    "refused",
]  # how a run that gave no score is named
LEVELS = ("none", "seatbelt", "landlock", "bubblewrap")  # of sandbox enforcement, weakest first
FIXED_TOOLS = frozenset({"read_reference", "get_status"})  # names that the naming rule must not make

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Command = Annotated[list[str], Field(min_length=1)]


def _inside(path: str) -> str:
    """A relative POSIX path that stays inside the task's folder."""
    pure = PurePosixPath(path)
    reserved = pure.parts[:1] in ((".git",), (".autoresearch",))
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or reserved:
        raise ValueError(f"{path!r} must be a relative path inside the task's folder, with forward slashes")
    return str(pure)


RelativePath = Annotated[str, Field(max_length=255)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Files(Section):
    editable: RelativePath
    """The one file the agent edits."""
    read_only: list[RelativePath] = []
    """Files laid out beside it from pinned blobs; the agent can read them."""
    editable_bytes: int = Field(default=128 * 2**10, gt=0, le=2**20)
    """How large the editable file may be."""
    literal_bytes: int = Field(default=16 * 2**10, gt=0)
    """How much of it may be data, where it is Python: strings, bytes, numbers, comments and names, each name once."""

    @field_validator("editable")
    @classmethod
    def _editable(cls, path: str) -> str:
        return _inside(path)

    @field_validator("read_only")
    @classmethod
    def _read_only(cls, paths: list[str]) -> list[str]:
        return [_inside(path) for path in paths]


class Run(Section):
    command: Command | None = None
    """Run in the sandbox before scoring; left out where there is nothing to run and the file itself is scored."""
    outputs: list[RelativePath] = []
    """Files the run leaves for the scoring command, taken over as regular files, bounded in size."""
    output_bytes: int = Field(default=16 * 2**30, gt=0)
    """How large one of these files may be."""
    declares: RelativePath | None = None
    """A file by which the run commits itself, before it is given data.train: the scoring command is shown it at once and may
    refuse it. Needs metric.starts_early."""
    budget_seconds: Seconds = 300
    """Training time. It starts when data.train is handed over; without such data, with the command."""
    startup_seconds: Seconds = 120
    """How long the run may take before it asks for data, free of charge; what goes beyond is taken from the budget. With a baseline
    it is three times the baseline's start-up plus 10 s, where that is less."""
    check_seconds: Seconds = 60
    """How long the check of what a run declares may take, free of charge; what goes beyond counts as start-up, for the run goes on
    meanwhile. With a baseline it is three times the baseline's check plus 10 s, where that is less."""
    grace_seconds: Seconds = 10
    """How far past the budget a run may finish its last step."""
    export_seconds: Seconds = 120
    """From the end of training until the outputs are there."""
    evaluate_seconds: Seconds = 300
    """How long the scoring command may take. With a baseline it is four times the baseline's plus 10 s, where that is less."""
    log_bytes: int = Field(default=8 * 2**20, ge=4096)
    """How much of the run's output is kept."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What a run takes: `auto` a GPU where there is one, else the CPU; `gpu` nothing else, and no run where there is none."""
    packages: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]] = []
    """Distributions that a run may import, with what they need, besides torch, numpy, tiktoken and safetensors with theirs; any
    other package is not there."""
    progress: str | None = None
    """Pattern with groups x and y that finds points of a learning curve in the log."""
    prune: bool = True
    """End a first run early whose curve, as `progress` finds it, is far below every end that earlier runs make plausible."""

    @field_validator("declares")
    @classmethod
    def _declares(cls, path: str | None) -> str | None:
        return None if path is None else _inside(path)

    @field_validator("outputs")
    @classmethod
    def _outputs(cls, paths: list[str]) -> list[str]:
        return [_inside(path) for path in paths]

    @field_validator("packages")
    @classmethod
    def _packages(cls, names: list[str]) -> list[str]:
        if OURS in [re.sub(r"[._-]+", "-", name).lower() for name in names]:
            raise ValueError(f"{OURS} itself is not for runs: its data is what they are scored on; remove it")
        return names

    @field_validator("progress")
    @classmethod
    def _progress(cls, pattern: str | None) -> str | None:
        if pattern is not None and not {"x", "y"} <= check(pattern):
            raise ValueError("the pattern needs the named groups (?P<x>...) and (?P<y>...)")
        return pattern


class Metric(Section):
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")
    """Of the score; it makes the tool `get_<name>`."""
    direction: Literal["minimize", "maximize"]
    """Which way is better."""
    command: Command
    """Prints the score as its last line: a number, or a JSON object with the key `score`."""
    starts_early: bool = False
    """Start the command with the run: it prints a line when it has loaded, before the budget starts, and then waits for lines on
    its input: `declared` when run.declares is there, which it answers in a line of JSON, and `score` when the outputs are."""
    baseline_runs: int = Field(default=3, ge=1, le=20)
    """How often the baseline is run before the first change, to know the noise. Two that agree to the last digit are enough."""
    confidence: Literal["single"] | Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """How much of what is kept shall be real: repeats are made until the evidence suffices. "single": one run decides, whatever
    luck it had, as in the original."""
    noise_floor: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Differences up to this size count as equal, whatever repeated runs show."""

    @property
    def sign(self) -> int:
        return 1 if self.direction == "maximize" else -1


class Data(Section):
    sources: list[RelativePath] = []
    """Files of the task that `prepare` reads; they go into the workspace, not into a run."""
    prepare: Command | None = None
    """Makes the folder {data}; run once by `autoresearch-mcp prepare`."""
    public: list[RelativePath] = []
    """Files of {data} that a run sees from its start."""
    train: list[RelativePath] = []
    """Files of {data} that a run receives when it asks, which starts the budget."""
    sealed: list[RelativePath] = []
    """Files of {data} that only the scoring command can read."""

    @field_validator("sources", "public", "train", "sealed")
    @classmethod
    def _paths(cls, paths: list[str]) -> list[str]:
        return [_inside(path) for path in paths]


class Sandbox(Section):
    minimum: Literal["none", "seatbelt", "landlock", "bubblewrap"] = "none"
    """The run is refused where the machine cannot enforce at least this."""
    memory_mb: int | None = Field(default=None, gt=0)
    """MiB that all processes of a run may hold together; where it is left out, nine tenths of the machine's memory."""
    processes: int = Field(default=512, gt=0)
    """How many processes a run may have at once."""
    disk_mb: int = Field(default=16384, gt=0)
    """MiB that a run may write."""


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
    data: Data = Data()
    """What is prepared once, outside the repository, and who may see which part of it."""
    sandbox: Sandbox = Sandbox()
    """What a run may use, and how well it must be confined."""
    failures: dict[str, str] = {}
    """Regular expressions by failure name: a run without a score is named by the first one that its log matches."""
    presets: dict[str, dict[str, Any]] = {}
    """Variants by name: tables of the keys that differ, laid over the rest where `preset` names them."""

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
        if self.read_tool in FIXED_TOOLS or self.get_tool in FIXED_TOOLS:
            raise ValueError(f"the tools would be named {self.read_tool} and {self.get_tool}, which collides; rename one")
        return self

    @model_validator(mode="after")
    def _declaration(self) -> "Task":
        if self.run.declares and not (self.metric.starts_early and self.data.train):
            raise ValueError("run.declares needs metric.starts_early = true, and data.train for the run to wait for")
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


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], cast("dict[str, Any]", value)) if both else value
    return merged


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
        merged = _merge(raw, presets[preset])
        where = f" (preset {preset})"
    try:
        return Task.model_validate(merged)
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


def expand(command: list[str], **values: str) -> list[str]:
    """Fills {python}, {data} and the like into a command; other braces stay as they are."""
    values = {"python": sys.executable, **values}
    return [re.sub(r"\{(\w+)\}", lambda match: values.get(match.group(1), match.group(0)), part) for part in command]


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
