"""Experiments in the trackers that people have: MLflow, Weights & Biases, TensorBoard, or a table. An experiment becomes a run of
theirs, with what it set as parameters, its scores and its curve as metrics, and its change, file and output as artefacts.

What is sent again takes the place of what was sent before, so a night can be exported twice, or followed after a restart. The
holdout goes with it only where a human asked. Each library is an extra, imported when it is asked for.
"""

import ast
import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from autoresearch_mcp.errors import AutoresearchError, NotFoundError
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.text import one_line, split_lines, visible
from autoresearch_mcp.views import references
from autoresearch_mcp.views.build import mean_holdout
from autoresearch_mcp.views.printed import Point, printed, recorded

NUMBER = re.compile(r"[+-]?[0-9][0-9_]*(\.[0-9]*)?([eE][+-]?[0-9]+)?")
NAME = re.compile(r"[A-Za-z_][\w.-]*")
PARAMETERS, CHARACTERS = 100, 500  # of one experiment, and of a value
LINES = 20_000  # of a file that are looked at
STEPS = 1000  # by which a share of the budget becomes a whole number, where there is no log any more


@dataclass(frozen=True)
class Told:
    """An experiment as trackers want it."""

    number: int
    session: str
    task: str
    name: str
    status: str
    at: float
    ended: float
    parameters: dict[str, str]
    metrics: dict[str, float]
    curve: list[Point]
    tags: dict[str, str]
    artefacts: dict[str, str] = field(default_factory=dict[str, str])
    """Texts, by file name."""

    @property
    def running(self) -> bool:
        return self.status in ("running", "pending")

    @property
    def steps(self) -> list[tuple[int, float]]:
        """The curve by whole numbers, which is how trackers count."""
        share = all(x <= 1 for x, _ in self.curve)
        return [(round(x * STEPS) if share else round(x), y) for x, y in self.curve]


def told(session: Session, experiment: ExperimentState, sealed: bool = False) -> Told:
    """All of one experiment. `sealed` adds the holdout."""
    committed, verdict, last, task = experiment.committed, experiment.verdict, experiment.last, session.task
    text, base = session.text_at(committed.commit), session.text_at(session.state.started.base_commit)
    metrics: dict[str, float] = {}
    if experiment.score is not None:
        metrics[task.metric.name] = experiment.score
        metrics["runs"] = float(len(experiment.scores))
    if verdict and verdict.gain:
        metrics |= dict(zip(("gain", "gain_low", "gain_high"), verdict.gain, strict=False))
    if last is not None:
        metrics |= {f"seconds/{phase}": seconds for phase, seconds in last.seconds.items()}
        metrics |= {f"details/{name}": value for name, value in last.details.items()}
        memory = {"memory_mb": last.peak_memory_mb, "vram_mb": last.peak_vram_mb}
        metrics |= {name: value for name, value in memory.items() if value is not None}
    if sealed and (holdout := mean_holdout(experiment)) is not None:
        metrics["holdout"] = holdout
    said = {
        "hypothesis": committed.hypothesis,
        "learned": verdict.learned if verdict else None,
        "reason": verdict.reason if verdict else None,
        "sandbox": last.enforcement if last else None,
        "hardware": last.hardware if last else None,
        "disturbed": last.disturbed if last else None,
        "places": ", ".join(committed.places),
        "verdict": experiment.label,
        "commit": committed.commit,
        "parent": committed.parent,
        "session": session.tag,
        "experiment": str(experiment.number),
        "description": committed.description,
    }
    read = printed(session, experiment)
    runs = [run for run in experiment.runs if run.ended]
    return Told(
        number=experiment.number,
        session=session.tag,
        task=task.name,
        name=visible(f"{experiment.number} {one_line(committed.description, 80)}"),
        status=experiment.status,
        at=experiment.at,
        ended=max((run.started_at + sum(run.ended.seconds.values()) for run in runs if run.ended), default=experiment.at),
        parameters=parameters(text, base),
        metrics=metrics,
        curve=(read.look() if read else []) or recorded(experiment),
        tags={name: visible(one_line(value, CHARACTERS)) for name, value in said.items() if value},
        artefacts={
            Path(task.files.editable).name: text,
            "change.diff": references.diff(session, experiment.number),
            "output.log": visible(references.output_of(session, experiment)),
        },
    )


def parameters(text: str, base: str) -> dict[str, str]:
    """What a file sets: of Python its constants; of any other what it sets differently from the one that the night began with."""
    found = constants(text)
    if not found:
        before = settings(base)
        found = {name: value for name, value in settings(text).items() if before.get(name) != value}
    return {name: visible(one_line(value, CHARACTERS)) for name, value in list(found.items())[:PARAMETERS]}


def constants(text: str) -> dict[str, str]:
    """Names of a Python file's top level, in capitals or set to a literal; empty for what is no Python."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    lines = split_lines(text)
    found: dict[str, str] = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for target in targets:
            if isinstance(target, ast.Name) and value is not None and (target.id.isupper() or isinstance(value, ast.Constant)):
                found[target.id] = _source(lines, value)
    return found


def _source(lines: list[str], node: ast.expr) -> str:
    """Of an expression, as far as a value is shown."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    parts = [line.encode() for line in lines[first : last + 1][:20]]
    if last - first < 20:
        parts[-1] = parts[-1][: node.end_col_offset]
    parts[0] = parts[0][node.col_offset :]
    return b"".join(parts).decode("utf-8", errors="replace")


def settings(text: str) -> dict[str, str]:
    """Lines like `name: value` or `name = value`."""
    found: dict[str, str] = {}
    for line in text.splitlines()[:LINES]:
        place = min((at for sign in ":=" if (at := line.find(sign)) > 0), default=0)
        name, value = line[:place].strip(), line[place + 1 :].strip(" \t;,}")
        if place and value and NAME.fullmatch(name):
            found[name] = value
    return found


# --- where they go ----------------------------------------------------------------------------------------------------


class Tracker(Protocol):
    def send(self, told: Told) -> None:
        """One experiment, instead of what was sent of it before."""
        ...

    def close(self) -> None:
        """Says that this was all for now."""
        ...


def library(name: str, extra: str) -> Any:
    """Raises NotFoundError where the extra is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise NotFoundError(f"{name} is not installed ({error}). Run: pip install 'autoresearch-mcp[{extra}]'") from error


class MLflow:
    """Runs of an MLflow experiment named after the task, found again by their tags."""

    def __init__(self, session: Session, where: str | None):
        """`where`: a tracking URI; MLFLOW_TRACKING_URI, or a database in the workspace, if None."""
        tracking = library("mlflow.tracking", "mlflow")
        self._entities = library("mlflow.entities", "mlflow")
        place = where or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{session.workspace.root / 'mlflow.db'}"
        self._client = tracking.MlflowClient(place)
        name = f"autoresearch/{session.task.name}"
        known = self._client.get_experiment_by_name(name)
        if known is not None and known.lifecycle_stage != "active":
            self._client.restore_experiment(known.experiment_id)
        self._experiment: str = known.experiment_id if known else self._client.create_experiment(name, _beside(place))
        self._workspace = _digest(session)

    def send(self, told: Told) -> None:
        client, entities = self._client, self._entities
        tags = {f"autoresearch.{name}": value for name, value in told.tags.items()} | {"autoresearch.workspace": self._workspace}
        same = f"tags.`autoresearch.workspace` = '{self._workspace}' and tags.`autoresearch.experiment` = '{told.number}'"
        known = client.search_runs([self._experiment], same)
        start, runs = round(told.at * 1000), int(told.metrics.get("runs", 0))
        if known:
            run = known[0].info.run_id
            for name, value in tags.items():
                client.set_tag(run, name, value)
        else:
            run = client.create_run(self._experiment, start_time=start, tags=tags, run_name=told.name).info.run_id
        # By the number of runs, so that the latest mean is the latest value; sent again, the same is the same.
        metrics = [entities.Metric(_safe(name), value, start, runs) for name, value in told.metrics.items()]
        metrics += [entities.Metric("curve", y, start, step) for step, y in told.steps]
        params = [entities.Param(_safe(name), value) for name, value in told.parameters.items()]
        for first in range(0, len(metrics), 1000):  # what one call takes
            client.log_batch(run, metrics[first : first + 1000])
        client.log_batch(run, params=params)
        for name, text in told.artefacts.items():
            client.log_text(run, text, name)
        if not told.running:
            client.set_terminated(run, "FINISHED" if told.metrics.get("runs") else "FAILED", round(told.ended * 1000))

    def close(self) -> None:
        pass


def _safe(name: str) -> str:
    """A name that trackers take: words of letters, digits and signs that no file system minds, with slashes between them."""
    words = [re.sub(r"[^A-Za-z0-9_. -]", "_", word).strip(". ") for word in name.split("/")]
    return "/".join(word for word in words if word)[:200] or "_"


def _beside(place: str) -> str | None:
    """Where artefacts go: beside a database of this machine, which would put them into whatever folder it is used from."""
    local = place.removeprefix("sqlite:///")
    return (Path(local).absolute().parent / "mlartifacts").as_uri() if local != place else None


class WeightsAndBiases:
    """Runs of a W&B project. Offline unless WANDB_MODE says otherwise: `wandb sync` sends them later."""

    def __init__(self, session: Session, where: str | None):
        """`where`: the folder of offline runs; the workspace if None."""
        self._wandb = library("wandb", "wandb")
        self._folder = Path(where) if where else session.workspace.root
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mode = os.environ.get("WANDB_MODE") or "offline"
        self._project = re.sub(r"[^\w.-]+", "-", f"autoresearch-{session.task.name}")
        self._workspace = _digest(session)

    def send(self, told: Told) -> None:
        identity = f"{self._workspace}-{told.number}"
        for before in (self._folder / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(before)
        run = self._wandb.init(
            project=self._project,
            id=identity,
            name=told.name,
            group=told.session,
            config=dict(told.parameters),
            tags=[told.tags["verdict"][:64]],
            notes=told.tags.get("hypothesis"),
            dir=str(self._folder),
            mode=self._mode,
            resume="allow",
            reinit="finish_previous",
            settings=self._wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        latest = -1
        for step, y in told.steps:
            if step > latest:
                run.log({"curve": y}, step=step)
                latest = step
        run.summary.update(told.metrics | {f"autoresearch/{name}": value for name, value in told.tags.items()})
        artefact = self._wandb.Artifact(f"experiment-{identity}", type="experiment")
        for name, text in told.artefacts.items():
            with artefact.new_file(name, encoding="utf-8") as file:
                file.write(text)
        run.log_artifact(artefact)
        run.finish(exit_code=0 if told.running or told.metrics.get("runs") else 1)

    def close(self) -> None:
        self._wandb.teardown()  # its service writes on after a run has finished


class TensorBoard:
    """A folder of event files a run."""

    def __init__(self, session: Session, where: str | None):
        """`where`: the log folder; `tensorboard` in the workspace if None."""
        library("tensorboard", "tensorboard")
        self._writer: Callable[..., Any] = import_module("torch.utils.tensorboard").SummaryWriter
        self._folder = Path(where) if where else session.workspace.root / "tensorboard"

    def send(self, told: Told) -> None:
        folder = self._folder / told.session / f"{told.number:05d}"
        shutil.rmtree(folder, ignore_errors=True)
        writer = self._writer(log_dir=str(folder))
        for step, y in told.steps:
            writer.add_scalar("curve", y, step)
        for name, value in told.metrics.items():
            writer.add_scalar(_safe(name), value, told.number)
        texts = {"tags": json.dumps(told.tags, indent=1)} | told.artefacts
        for name, text in texts.items():
            writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()), told.number)  # Markdown's for: as it is
        writer.add_hparams(
            dict(told.parameters), {f"hparam/{_safe(name)}": value for name, value in told.metrics.items()}, run_name="."
        )
        writer.close()

    def close(self) -> None:
        pass


class Table:
    """One file for all, rewritten whole: CSV with a column for each parameter and metric, or JSON."""

    def __init__(self, session: Session, where: str | None, form: str):
        self._path = Path(where) if where else session.workspace.root / f"experiments-{session.tag}.{form}"
        self._form = form
        self._rows: dict[int, Told] = {}

    def send(self, told: Told) -> None:
        self._rows[told.number] = told

    def close(self) -> None:
        rows = [told for _, told in sorted(self._rows.items())]
        if self._form == "json":
            write_atomic(self._path, (json.dumps([asdict(told) for told in rows], indent=1) + "\n").encode(), 0o600)
            return
        flat = [
            {"experiment": told.number, "session": told.session, "status": told.status, "at": told.at}
            | {f"tag.{name}": value for name, value in told.tags.items()}
            | {f"metric.{name}": value for name, value in told.metrics.items()}
            | {f"parameter.{name}": value for name, value in told.parameters.items()}
            for told in rows
        ]
        names = list(dict.fromkeys(name for row in flat for name in row))
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in flat)
            file.seek(0)
            write_atomic(self._path, file.read().encode(), 0o600)


TRACKERS: dict[str, Callable[[Session, str | None], Tracker]] = {
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
    "tensorboard": TensorBoard,
    "csv": lambda session, where: Table(session, where, "csv"),
    "json": lambda session, where: Table(session, where, "json"),
}


def tracker(name: str, session: Session, where: str | None) -> Tracker:
    """Raises NotFoundError for one that there is none of or whose library is missing, AutoresearchError for what it refuses."""
    if name not in TRACKERS:
        raise NotFoundError(f"There is no tracker {name!r}. Choose one of: {', '.join(TRACKERS)}.")
    with refusing(name):
        return TRACKERS[name](session, where)


@contextmanager
def refusing(name: str) -> Generator[None]:
    """What a library raises, as an error of ours."""
    try:
        yield
    except AutoresearchError:
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 400)
        raise AutoresearchError(f"{name} refuses: {reason}. Check --where and the settings in its environment.") from error


def _no_formula(value: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t") or NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def _digest(session: Session) -> str:
    """Which workspace it is, for what was sent before."""
    return hashlib.sha256(str(session.workspace.root).encode()).hexdigest()[:10]
