"""What a task's file scores as it lies in a folder: no session, no ledger, no git and no agent. For whoever writes a task.

The run is a real one, by the same executor, sandbox and clock; only its result goes nowhere. Nothing in the folder is changed: the
files are read once, and what the run has is a copy. Whether the scoring command leaves alone what it must is looked at around it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from statistics import mean, stdev

from autoresearch_mcp.create import files_in
from autoresearch_mcp.data import DataFolder
from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.files import file_sha256
from autoresearch_mcp.loop.runs import SEED
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run import outputs, places
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import TASK_FILE, Task, parse_task, programs, with_read_only
from autoresearch_mcp.text import tail

POLL = 0.05  # seconds between looks at the run
PATIENCE = 20.0  # seconds that a run has to end when it is asked to
TAIL, LINES = 4000, 60  # characters and lines that are shown of an output

Tell = Callable[[int, Progress], None]
"""Hears the number of the run, from 0, and how far it is."""


def in_silence(number: int, progress: Progress) -> None:
    """A Tell for whom nobody listens."""


@dataclass(frozen=True)
class Tried:
    """One run."""

    ended: RunEnded
    output: str
    """The end of what the run printed."""
    scoring: str
    """The end of what the scoring command printed, sealed or not: this is for whoever wrote it."""
    checks: str
    refused: list[str]
    """What the sandbox refused: system calls, of files and programs with their path."""


@dataclass(frozen=True)
class Trial:
    task: Task
    runs: list[Tried]
    changed: list[str] = field(default_factory=list[str])
    """Files outside the run that are not what they were before it."""

    @property
    def scores(self) -> list[float]:
        return [tried.ended.score for tried in self.runs if tried.ended.score is not None]

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def noise(self) -> float | None:
        """Standard deviation of one run's score; None where there are not two."""
        return stdev(self.scores) if len(self.scores) > 1 else None


def read_folder(folder: Path, preset: str | None = None) -> tuple[Task, dict[str, bytes]]:
    """The task in a folder, with the editable and read-only files as they lie there. Raises TaskError."""
    path = folder / TASK_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}. Make a task with: autoresearch-mcp new-task {folder}") from error
    if preset is not None:
        import tomlkit

        document = tomlkit.parse(text)
        document["preset"] = preset
        text = tomlkit.dumps(document)
    task = parse_task(text, str(path))
    task = with_read_only(task, files_in(folder, task))
    files: dict[str, bytes] = {}
    for name in (task.files.editable, *task.files.read_only):
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise TaskError(
                f"{path} names {name}, which cannot be read: {error.strerror}. Add the file or correct the name."
            ) from error
    return task, files


def data_of(folder: Path, task: Task, files: dict[str, bytes]) -> DataFolder:
    made_from = {name: content for name, content in files.items() if name != task.files.editable}
    for name in task.data.sources:
        if not (folder / name).is_file():
            what = "is a folder: name its files" if (folder / name).is_dir() else "is not there: add it, or correct the name"
            raise TaskError(f"{folder / TASK_FILE} names {name} in data.sources, which {what}.")
        made_from[name] = (folder / name).read_bytes()
    return DataFolder(task, made_from)


def run_trial(
    folder: Path,
    count: int = 1,
    preset: str | None = None,
    replace: bytes | None = None,
    tell: Tell = in_silence,
    prepare: bool = True,
    stop_at_failure: bool = False,
    first: int = 0,
) -> Trial:
    """Runs and scores the file of a folder `count` times, in turn, with the seeds that an experiment's runs have, from its `first`
    one on; `replace` is tried in its place. `tell` hears of the progress. Raises TaskError, WorkspaceError.
    """
    task, files = read_folder(folder, preset)
    for name, place in programs(task).items():
        if place is None:
            raise TaskError(
                f"{folder / TASK_FILE} names the program {{{name}}}, which is not on PATH. Install it, or correct the name."
            )
    data = data_of(folder, task, files)
    if missing := data.missing():
        if not prepare:
            raise TaskError(
                f"The data of the files as they lie there is not prepared: {', '.join(missing)} missing in {data.path}."
            )
        data.prepare(folder)
        if missing := data.missing():
            raise TaskError(f"The task's data is not there: {', '.join(missing)} missing in {data.path}.")
    if replace is not None:
        files = {**files, task.files.editable: replace}
    LocalExecutor().sweep("trial")
    before = _state(folder, task, data)
    runs: list[Tried] = []
    for number in range(first, first + count):
        runs.append(_run(folder, task, files, data, number, tell))
        if stop_at_failure and runs[-1].ended.score is None:
            break
    after = _state(folder, task, data)
    return Trial(task, runs, sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def _run(folder: Path, task: Task, files: dict[str, bytes], data: DataFolder, number: int, tell: Tell) -> Tried:
    executor, token = LocalExecutor(), token_hex(8)
    spec = RunSpec(
        run=number + 1,
        token=token,
        experiment=0,
        tag="trial",
        seed=SEED + number,
        task=task,
        folder=places.root() / f"trial-{token[:8]}",
        ledger=None,
        results=folder / "results.tsv",
        data=data.path if data.needed else None,
        enforcement=detect().level,
        watch=True,
    )
    try:
        executor.start(spec, files)
        while executor.is_alive(spec):
            tell(number, executor.progress(spec))
            time.sleep(POLL)
        ended = executor.collect(spec)
        if ended is None:
            ended = RunEnded(run=spec.run, outcome="crash", failure="lost", seconds=NEVER, excerpt=tail(spec.host_log))
        refused = spec.refused.read_text().splitlines() if spec.refused.exists() else []
        return Tried(
            ended, _end_of(spec.log) or _end_of(spec.called_log), _end_of(spec.scoring_log), _end_of(spec.checks_log), refused
        )
    except KeyboardInterrupt:
        executor.stop(spec)
        deadline = time.monotonic() + PATIENCE
        while executor.is_alive(spec) and time.monotonic() < deadline:
            time.sleep(POLL)
        raise
    finally:
        executor.clean_up(spec)
        if not executor.is_alive(spec):
            outputs.remove(spec.folder)


def _end_of(log: Path) -> str:
    return tail(log, TAIL, LINES) if log.exists() else ""


def _state(folder: Path, task: Task, data: DataFolder) -> dict[str, str]:
    """Hashes of the files that nothing may change."""
    places = {name: folder / name for name in (TASK_FILE, task.files.editable, *task.files.read_only, *task.data.sources)}
    places |= {f"{{data}}/{name}": data.path / name for name in data.names}
    return {name: file_sha256(path) if path.is_file() else "none" for name, path in places.items()}
