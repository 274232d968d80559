"""The tables of autoresearch.toml as pydantic models: files, run, metric, checks, data, sandbox, limits, hooks.

What a table means is told under its keys, from where docs/reference.md has it. task.py puts them together.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from autoresearch_mcp.patterns import check

OURS = "autoresearch-mcp"  # the distribution that this is

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
    "scoring",
    "error",
    "refused",
]  # how a run that gave no score is named
EXECUTORS = ("local", "ray")  # where runs take place
LEVELS = ("none", "seatbelt", "landlock", "bubblewrap")  # of sandbox enforcement, weakest first

MOST = 4096  # cores, GPUs or other slots of one kind that a run may ask for, or a machine has
ENVIRONMENT = r"^[A-Za-z_][A-Za-z0-9_]*$"
RESERVED = "AUTORESEARCH_"  # how the names begin that the server sets itself

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Command = Annotated[list[str], Field(min_length=1)]


def _inside(path: str) -> str:
    """A relative POSIX path that stays inside the task's folder."""
    pure = PurePosixPath(path)
    reserved = pure.parts[:1] in ((".git",), (".autoresearch",))
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or reserved:
        raise ValueError(f"{path!r} must be a relative path inside the task's folder, with forward slashes")
    return str(pure)


HOST = r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"


def _hosts(names: list[str]) -> list[str]:
    for name in names:
        if not re.match(HOST, name):
            raise ValueError(f"{name!r} names no host of a network: write api.example.org, *.example.org or localhost:8080")
    return names


def _settings(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not re.match(ENVIRONMENT, name) or name.startswith(RESERVED):
            raise ValueError(f"{name!r} cannot be set: a name has letters, digits and _, and does not begin with {RESERVED}")
        if "\0" in value:
            raise ValueError(f"the value of {name} has a character that no environment can hold")
    return env


RelativePath = Annotated[str, Field(max_length=255)]
Environment = Annotated[dict[str, str], AfterValidator(_settings)]
Network = Literal["none", "loopback"] | Annotated[list[str], Field(min_length=1), AfterValidator(_hosts)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Files(Section):
    editable: RelativePath
    """The one file the agent edits."""
    read_only: list[RelativePath] = []
    """Files laid out beside it from pinned blobs; the agent can read them. A folder stands for all in it, and `tests/**/*.py` for
    what it matches, as in git's `:(glob)`; the editable file is never among them."""
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
    grace_seconds: Seconds | None = None
    """How far past the budget a run may finish its last step; a tenth of the budget, 1 to 10 s, where it is left out."""
    export_seconds: Seconds = 120
    """From the end of training until the outputs are there."""
    evaluate_seconds: Seconds = 300
    """An older name of `timeout_seconds` in [metric], which counts where both are given."""
    log_bytes: int = Field(default=8 * 2**20, ge=4096)
    """How much of the run's output is kept."""
    executor: Literal["local", "ray"] = "local"
    """Where runs take place: on this machine, or on the Ray cluster that RAY_ADDRESS names (docs/cluster.md). AUTORESEARCH_EXECUTOR
    in the server's environment, or `serve --executor`, counts more."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """What a run takes: `auto` a GPU where there is one, else the CPU; `gpu` nothing else, and no run where there is none."""
    gpus: int = Field(default=1, ge=1, le=MOST)
    """How many GPUs a run takes, if it takes any."""
    cpus: int | None = Field(default=None, ge=0, le=MOST)
    """How many physical cores a run is held to, so that several run side by side without timing each other; 0 for one that hardly
    computes and shares them. Left out, a run on the CPU takes all of them, and one on a GPU shares them."""
    resources: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")], Annotated[int, Field(ge=1, le=MOST)]] = {}
    """What else of the machine a run takes for itself, by name; AUTORESEARCH_RESOURCES says how much of it there is."""
    packages: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]] = []
    """Distributions that a run may import, with what they need, besides torch, numpy, tiktoken and safetensors with theirs; any
    other package is not there."""
    compiled: RelativePath | None = None
    """A folder that compiling fills, in the run's own: its content is kept for later runs of the same file. It is made by a run for
    compiling alone, which is ended when it asks for data, so it needs data.train."""
    preload: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]] = []
    """Modules that take long to import: between runs a process waits in the next run's sandbox with these imported, so that the run
    begins at once; one that nothing waited for begins by importing them. The command must then be `{python} FILE ...`."""
    env: Environment = {}
    """What the command finds in its environment besides what every run does (docs/tasks.md); a value may begin with `~/`."""
    network: Network = "none"
    """`loopback`: programs of one run may talk to each other over 127.0.0.1 and ::1, and to nobody else. Hosts: to those as well,
    by a proxy that HTTP_PROXY names: `["api.example.org", "*.example.org", "localhost:8080"]`. Both need bubblewrap."""
    progress: str | None = None
    """Pattern with groups x and y that finds points of a learning curve in the log."""
    prune: bool = True
    """End a first run early whose curve, as `progress` finds it, has diverged or is far below every plausible end."""

    @field_validator("resources")
    @classmethod
    def _others(cls, resources: dict[str, int]) -> dict[str, int]:
        if ours := [name for name in resources if name.lower() in ("cpu", "gpu", "core", "memory", "object_store_memory")]:
            raise ValueError(
                f"{ours[0]} is no name for a resource of your own: say cpus = N or gpus = N, sandbox.memory_mb for memory"
            )
        return resources

    @field_validator("declares", "compiled")
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

    @property
    def grace(self) -> float:
        """Seconds."""
        return min(10.0, max(1.0, self.budget_seconds / 10)) if self.grace_seconds is None else self.grace_seconds

    @field_validator("progress")
    @classmethod
    def _progress(cls, pattern: str | None) -> str | None:
        if pattern is not None and not {"x", "y"} <= check(pattern):
            raise ValueError("the pattern needs the named groups (?P<x>...) and (?P<y>...)")
        return pattern


class Metric(Section):
    name: Name
    """Of the score; it makes the tool `get_<name>`."""
    direction: Literal["minimize", "maximize"]
    """Which way is better."""
    unit: str = Field(default="", max_length=20)
    """Of the score, shown behind it: ms, %, kB."""
    command: Command
    """Says the score: a number, or a JSON object (docs/tasks.md)."""
    answer: Literal["last line", "descriptor"] = "last line"
    """Where: in the last line that it prints, or in the open file whose number is in AUTORESEARCH_ANSWER, which no library prints
    on."""
    repeats: int = Field(default=1, ge=1, le=99)
    """How often the command scores one run's outputs; the median counts, of every figure. For what is noisy in the measuring
    itself, like a time; noise between runs is `baseline_runs`' to find."""
    timeout_seconds: Seconds | None = None
    """How long it may take each time; 300 where it is left out. In a task with data.train and a baseline it is four times the
    baseline's plus 10 s, where that is less."""
    env: Environment = {}
    """What the command finds in its environment besides where programs and libraries are."""
    network: Network = "none"
    """As in [run]. A host that is named may hear what is sealed, for the command can send it."""
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

    @model_validator(mode="after")
    def _one_talk(self) -> "Metric":
        if self.starts_early and (self.repeats > 1 or self.answer != "last line"):
            raise ValueError('starts_early goes with repeats = 1 and answer = "last line" alone; leave one of them out')
        return self

    @property
    def sign(self) -> int:
        return 1 if self.direction == "maximize" else -1


class Check(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,39}$")]
    """How the verdict calls it."""
    command: Command
    """Passes with exit status 0. It runs in a sandbox of its own, on the pinned files; `{file}` is where the editable file lies
    as data, in a folder that no import looks into."""
    executes: bool = False
    """Lay the editable file beside the pinned ones, where the command can import it. Then it runs in the check's own process, and
    can end it with whatever status it likes: what is checked so is a courtesy and no proof."""
    timeout_seconds: Seconds = 120
    """How long it may take."""
    env: Environment = {}
    """What the command finds in its environment besides where programs and libraries are."""


class Secondary(Section):
    name: Name
    """Of a figure in the `details` that the scoring command gives."""
    unit: str = Field(default="", max_length=20)
    """Shown behind it."""
    at_most: float | None = Field(default=None, allow_inf_nan=False)
    """Not kept is what has more, as the mean of its runs."""
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    """Not kept is what has less."""
    worse_percent: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """By how many per cent of the baseline's it may be worse. Needs `direction`."""
    direction: Literal["minimize", "maximize"] | None = None
    """Which way is better."""

    @model_validator(mode="after")
    def _direction(self) -> "Secondary":
        if self.worse_percent is not None and self.direction is None:
            raise ValueError("worse_percent needs a direction: minimize or maximize")
        return self


class Data(Section):
    sources: list[RelativePath] = []
    """Files of the task that `prepare` reads; they go into the workspace, not into a run."""
    prepare: Command | None = None
    """Makes the folder {data}; run once by `autoresearch-mcp prepare`."""
    text: Annotated[str, Field(min_length=1)] | None = None
    """Folder of documents of your own, absolute or from `~`: `prepare` finds it in AUTORESEARCH_TEXT, and the default task makes
    its data from it. `autoresearch-mcp prepare --text FOLDER` writes it here."""
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

    @field_validator("text")
    @classmethod
    def _folder(cls, text: str | None) -> str | None:
        if text is not None and not Path(text).expanduser().is_absolute():
            raise ValueError(f"{text!r} must be an absolute path, or begin with ~")
        return text


class Sandbox(Section):
    minimum: Literal["none", "seatbelt", "landlock", "bubblewrap"] = "none"
    """The run is refused where the machine cannot enforce at least this."""
    memory_mb: int | None = Field(default=None, gt=0)
    """MiB that all processes of a run may hold together; where it is left out, nine tenths of the machine's memory."""
    processes: int = Field(default=512, gt=0)
    """How many processes a run may have at once."""
    disk_mb: int = Field(default=16384, gt=0)
    """MiB that a run may write."""
    readable: list[Annotated[str, Field(min_length=1)]] = []
    """Folders or files outside the task, absolute or from `~`, that runs, checks and scoring may read: a toolchain below a home."""

    @field_validator("readable")
    @classmethod
    def _readable(cls, paths: list[str]) -> list[str]:
        for path in paths:
            place = Path(path).expanduser()
            if not place.is_absolute() or ".." in place.parts or place == Path("/") or place == Path.home():
                raise ValueError(f"{path!r} must be an absolute path, or begin with ~, and be neither / nor a whole home")
        return paths


class Limits(Section):
    experiments: int | None = Field(default=None, ge=1)
    """How many a session may have, the baseline among them."""
    hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How long a session may go on, from its first run."""
    stop_at: float | None = Field(default=None, allow_inf_nan=False)
    """The score that is good enough: the session is done when its best has reached it."""
    cost_per_run: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What a run costs, in whatever you count: status shows the sum."""
    cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How much all runs of a session may cost. Needs `cost_per_run`."""

    @model_validator(mode="after")
    def _cost(self) -> "Limits":
        if self.cost is not None and not self.cost_per_run:
            raise ValueError("cost needs cost_per_run: what one run costs")
        return self


class Notify(Section):
    """Commands of yours, run outside any sandbox in the workspace, with JSON on their input; see docs/tasks.md."""

    on_keep: Command | None = None
    """A change was kept."""
    on_plateau: Command | None = None
    """20 experiments in a row did not help, and again after every 20 more."""
    on_stall: Command | None = None
    """The agent of a night stands still or fails, and is started afresh."""
    on_end: Command | None = None
    """The session reached a limit, or its night is over."""
    timeout_seconds: Seconds = 60
    """How long one may take."""
