"""Looks at everything a run depends on, and says for each thing what was found and how to mend it."""

import ast
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from autoresearch_mcp import __version__
from autoresearch_mcp.create import presets_of
from autoresearch_mcp.data import DataFolder, cache_root
from autoresearch_mcp.errors import AutoresearchError, TaskError
from autoresearch_mcp.executors.chosen import ChosenExecutor
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.loop.trial import Tell, Tried, in_silence, run_trial
from autoresearch_mcp.run.disturbance import SETTING, load
from autoresearch_mcp.run.fitting import TOLERANCE, fitting, size_of, smallest_gpu
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.task import TASK_FILE, Task, not_installed, parse_task, programs
from autoresearch_mcp.text import format_score
from autoresearch_mcp.workspace import STATE, Workspace

PACKAGES = ("mcp", "torch", "numpy", "tiktoken", "gitpython", "pydantic", "anyio")
FREE_DISK = 2 * 2**30
QUICK = 10.0  # seconds that a run may take for doctor to try it


class Check(BaseModel):
    name: str
    level: Literal["ok", "warning", "error"]
    found: str
    fix: str = ""


def examine(directory: Path, score: bool | None = None, tell: Tell = in_silence) -> list[Check]:
    """All checks; those of the workspace only where the folder is one.

    `score`: whether to run and score the file, twice; where None, if that takes no longer than QUICK seconds. `tell` hears of the
    progress.
    """
    checks = [_python(), _git(), _torch(), _sandbox(), _hardware(), _preset(directory), _disk(directory), *_cluster(directory)]
    if (directory / TASK_FILE).exists() or (directory / STATE).exists():
        checks += _workspace(directory, lambda data: of_metric(directory, data, score, tell))
    else:
        fix = "autoresearch-mcp init DIR, then autoresearch-mcp doctor --workspace DIR"
        checks.append(Check(name="workspace", level="warning", found=f"{directory.absolute()} is none", fix=fix))
    return checks


def _python() -> Check:
    missing: list[str] = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    found = f"autoresearch-mcp {__version__}, Python {platform.python_version()} on {platform.platform()}"
    if missing:
        return Check(name="packages", level="error", found=f"missing: {', '.join(missing)}", fix="pip install autoresearch-mcp")
    return Check(name="packages", level="ok", found=found)


def _git() -> Check:
    if shutil.which("git") is None:
        return Check(name="git", level="error", found="not found", fix="install git, on Debian: apt install git")
    version = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.strip()
    name = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True).stdout.strip()
    if not name:
        fix = "to have your own name there: git config --global user.name NAME; and user.email"
        return Check(name="git", level="ok", found=f"{version}; commits will be by autoresearch-mcp", fix=fix)
    return Check(name="git", level="ok", found=f"{version}; commits will be by {name}")


def _torch() -> Check:
    """Asks torch in a process of its own: this one never imports it."""
    code = (
        "import torch; d = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'; "
        "n = torch.cuda.get_device_name() if d == 'cuda' else f'{torch.get_num_threads()} threads'; print(torch.__version__, d, n)"
    )
    probe = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or ["no message"]
        return Check(name="torch", level="error", found=last[0], fix="pip install 'torch==2.13.0'")
    version, device, detail = probe.stdout.strip().split(" ", 2)
    if device == "cpu" and Path("/dev/nvidiactl").exists():
        fix = "this torch is a CPU build or the driver is too old for it; see pytorch.org/get-started"
        return Check(name="torch", level="warning", found=f"{version} does not see the NVIDIA device", fix=fix)
    return Check(name="torch", level="ok", found=f"{version} on {device} ({detail})")


def _sandbox() -> Check:
    enforcement = detect()
    level = "warning" if enforcement.level == "none" else "ok"
    return Check(name="sandbox", level=level, found=f"{enforcement.level}: {enforcement.explanation}", fix=enforcement.advice)


def _hardware() -> Check:
    """What runs are on, and whether others take so much of it now that a run would count as disturbed."""
    found, disturbing = load()
    if not disturbing:
        return Check(name="hardware", level="ok", found=found)
    fix = f"end it, or wait: a run beside it is made again. Where the machine is never quiet, set {SETTING} (docs/conditions.md)"
    return Check(name="hardware", level="warning", found=f"{found}; now {'; '.join(disturbing)}", fix=fix)


def _task_in(directory: Path) -> Task | None:
    """As its file says it now; None where there is none, or none that can be read, which is another check's to tell."""
    with suppress(OSError, ValueError, TaskError):
        return parse_task((directory / TASK_FILE).read_text(encoding="utf-8"))
    return None


def _preset(directory: Path) -> Check:
    """What `init` would pick here, and whether a workspace has what its machine cannot hold."""
    gpu, presets = smallest_gpu(), presets_of("default")
    found = f"{fitting(presets)} fits the default task here" + (f": the GPU has {gpu:.0f} GiB" if gpu else "")
    task = _task_in(directory)
    own = task.preset if task else None
    size = size_of(own, presets) if own in presets else None
    if size and (gpu is None or gpu < size * TOLERANCE):
        fix = f"autoresearch-mcp init DIR   (it picks {fitting(presets)})"
        here = "this machine has no GPU" if gpu is None else f"the GPU has {gpu:.0f}"
        return Check(name="preset", level="warning", found=f"{own} is for {size} GiB, {here}", fix=fix)
    return Check(name="preset", level="ok", found=found)


def _cluster(directory: Path) -> list[Check]:
    """Whether the cluster answers on which runs would take place."""
    task = _task_in(directory)
    try:
        executor = ChosenExecutor(task.run.executor if task else "local")
        if executor.cluster is None:
            return []
        there = ", ".join(f"{use.there} {use.kind}" for use in executor.cluster.resources())
    except AutoresearchError as error:
        return [Check(name="cluster", level="error", found=str(error), fix="docs/cluster.md says how to reach one")]
    return [Check(name="cluster", level="ok", found=f"Ray, with {there or 'no room for runs'}")]


def _disk(directory: Path) -> Check:
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.0f} GiB free; data is cached in {cache_root()}"
    if free < FREE_DISK:
        return Check(name="disk", level="warning", found=found, fix="free some space: a full disk ends runs without a result")
    return Check(name="disk", level="ok", found=found)


def _workspace(directory: Path, scored: Callable[[DataFolder], list[Check]]) -> list[Check]:
    try:
        workspace = Workspace(directory)
        ledger = open_ledger(workspace)
        events, sessions = ledger.verify(), ledger.state().sessions
        if not sessions and (known := workspace.highest_experiment()):
            found = f"git knows {known} experiments and the ledger none: it was lost"
            fix = "put .autoresearch/ledger.db back from a backup; a new session would count on from there"
            return [Check(name="workspace", level="error", found=found, fix=fix), *_places(workspace)]
        if not sessions:
            data = workspace.data()
            found, fix = f"{_named(data.task)}, no session yet", f"autoresearch-mcp serve --workspace {directory}"
            checks = [Check(name="workspace", level="ok", found=found, fix=fix), _data(data, directory)]
            return [*checks, *_imports(data.task), *_programs(data.task), *scored(data), *_places(workspace)]
        session = Session.open(workspace, ledger)
        gone = session.recovery.restore_refs()
        session.read()
    except AutoresearchError as error:
        return [Check(name="workspace", level="error", found=str(error))]
    except OSError as error:
        return [Check(name="workspace", level="error", found=str(error), fix="mend permissions or free disk space")]
    found = (
        f"{_named(session.task)}, session {session.tag}, {len(session.state.experiments)} experiments, "
        f"ledger verified ({events} events)"
    )
    checks = [Check(name="workspace", level="ok", found=found), _data(session.data, directory), *_imports(session.task)]
    checks += [*_programs(session.task), *_stale(session), *scored(session.data)]
    if session.task.outdated:
        checks.append(Check(name="harness", level="error", found=session.task.outdated))
    if gone:
        numbers = ", ".join(map(str, gone[:10])) + (" and more" if len(gone) > 10 else "")
        fix = "fetch them from a copy of the repository, else their code is lost; the record of their scores is not"
        checks.append(Check(name="git objects", level="warning", found=f"the commits of experiments {numbers} are gone", fix=fix))
    return [*checks, *_places(workspace)]


def _named(task: Task) -> str:
    return f"task {task.name}, preset {task.preset}" if task.preset else f"task {task.name}"


def _data(data: DataFolder, directory: Path) -> Check:
    if missing := data.missing():
        fix = f"autoresearch-mcp prepare --workspace {directory}"
        return Check(name="data", level="error", found=f"missing: {', '.join(missing)}", fix=fix)
    return Check(name="data", level="ok", found=str(data.path) if data.needed else "the task needs none")


def _imports(task: Task) -> list[Check]:
    """What the task lists for its runs and nobody has installed; nothing where all is well."""
    missing = not_installed(task)
    fix = f"{sys.executable} -m pip install {' '.join(missing)}"
    found = f"not installed: {', '.join(missing)} ([run] packages)"
    return [Check(name="run.packages", level="error", found=found, fix=fix)] if missing else []


def _programs(task: Task) -> list[Check]:
    """The programs that the task's commands name, and where they lie; nothing where they name none."""
    found = programs(task)
    if missing := [name for name, place in found.items() if place is None]:
        fix = "install them, or correct the names in braces"
        return [Check(name="programs", level="error", found=f"not on PATH: {', '.join(missing)}", fix=fix)]
    said = ", ".join(f"{name}: {place}" for name, place in found.items())
    return [Check(name="programs", level="ok", found=said)] if found else []


def _stale(session: Session) -> list[Check]:
    """What the user committed since the session began, which it does not see; nothing where there is nothing."""
    if not (names := session.stale()):
        return []
    found = f"{', '.join(names)} changed since session {session.tag} began, which goes on with what it has"
    fix = f"for the new ones: autoresearch-mcp serve --session NAME --workspace {session.workspace.root}"
    return [Check(name="session", level="warning", found=found, fix=fix)]


def of_metric(directory: Path, data: DataFolder, score: bool | None = None, tell: Tell = in_silence) -> list[Check]:
    """Runs and scores the file as it lies there, twice: if `score` says so or, where it is None, a run takes at most QUICK."""
    fix, task = f"autoresearch-mcp try --workspace {directory}", data.task
    if data.missing():
        return []
    if score is None and task.run.command and task.run.budget_seconds > QUICK:
        found = f"not tried: a run may take {task.run.budget_seconds:g} s"
        return [Check(name="metric", level="ok", found=found, fix="to run and score it twice: add --score")]
    if score is False:
        return []
    try:
        trial = run_trial(directory.expanduser().absolute(), 2, tell=tell, prepare=False, stop_at_failure=True)
    except AutoresearchError as error:
        return [Check(name="metric", level="error", found=str(error))]
    for tried in trial.runs:
        if tried.ended.score is None:
            said = (tried.ended.excerpt or tried.scoring).strip()
            blame = f"{said.splitlines()[0] if said else 'no score'} ({tried.ended.failure})"
            return [Check(name="metric", level="error", found=blame, fix=f"see all that it printed: {fix}")]
    if trial.changed:
        found = f"running or scoring changes {', '.join(trial.changed)}"
        return [Check(name="metric", level="error", found=found, fix="let the command write into its own folder alone")]
    found = f"{task.metric.name} {' and '.join(map(format_score, trial.scores))}{_speed(trial.runs[-1])}"
    checks = [Check(name="metric", level="ok", found=found)]
    for name, said in trial.runs[-1].ended.checks.items():
        if said:
            found = f"{name} fails on the file as it is: {said.splitlines()[0]}"
            checks.append(Check(name="check", level="error", found=found, fix=f"mend it; to see more: {fix}"))
    lacking = [metric.name for metric in task.secondary if metric.name not in trial.runs[-1].ended.details]
    if lacking:
        found = f"the scoring command's details lack {', '.join(lacking)}, which [[secondary]] names"
        checks.append(Check(name="secondary", level="error", found=found, fix="give them, or correct the names"))
    return checks + _imported(directory, task)


def _speed(tried: Tried) -> str:
    """By the number of tokens that the run printed, as train.py does, and the seconds that it had; empty where it printed none."""
    printed, seconds = re.findall(r"^total_tokens_M: +([0-9.]+)$", tried.output, re.MULTILINE), tried.ended.seconds.get("training")
    return f"; {float(printed[-1]) * 1e6 / seconds:,.0f} tokens a second, by what it printed" if printed and seconds else ""


def _imported(directory: Path, task: Task) -> list[Check]:
    """A scoring script that imports the editable file: then that decides what is printed. As far as a look at its source shows."""
    module = Path(task.files.editable).stem
    for name in task.files.read_only:
        if not name.endswith(".py"):
            continue
        with suppress(OSError, SyntaxError, UnicodeDecodeError):
            for node in ast.walk(ast.parse((directory / name).read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if module in {part for name in names for part in name.split(".")}:
                    found = f"{name} imports {task.files.editable}, which so runs where the score is said, and can say its own"
                    fix = "call it in a sandboxed child: autoresearch_mcp.evaluate.child (docs/tasks.md)"
                    return [Check(name="metric", level="warning", found=found, fix=fix)]
    return []


def _places(workspace: Workspace) -> list[Check]:
    """What cannot be written, locks that git left, and errors that the server met; nothing where all is well."""
    checks: list[Check] = []
    for folder in (workspace.root, workspace.state_dir, workspace.common):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            fix = "make it writable for your user, or free disk space"
            checks.append(Check(name="disk", level="error", found=f"{folder} cannot be written: {error.strerror}", fix=fix))
    for lock in sorted(workspace.common.glob("*.lock")):
        fix = f"if no git command runs there: rm {lock}"
        checks.append(Check(name="git", level="warning", found=f"{lock.name} was left behind or is in use", fix=fix))
    return checks + _server_log(workspace)


def _server_log(workspace: Workspace) -> list[Check]:
    """Where the server met something that it did not foresee."""
    path = workspace.state_dir / "server.log"
    if not path.exists() or " ERROR " not in path.read_text(encoding="utf-8", errors="replace"):
        return []
    return [Check(name="server log", level="warning", found=f"the server met errors; the latest are at the end of {path}")]
