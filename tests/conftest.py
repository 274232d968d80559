"""Fixtures: workspaces of real tasks in temporary folders, real git, real SQLite, real processes."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import disturbance, places, sandbox
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import parse_task
from autoresearch_mcp.workspace import Workspace

pytest_plugins = ["needs", "driver"]

ROOT = Path(__file__).parent.parent

TOY = """
name = "toy"
goal = "Raise score, the number that work.py leaves in result.txt."

[files]
editable = "work.py"
read_only = ["score.py"]

[run]
command = ["{python}", "work.py"]
outputs = ["result.txt"]
budget_seconds = 20
grace_seconds = 1
progress = 'step (?P<x>[0-9]+) loss (?P<y>[0-9.]+)'

[metric]
name = "score"
direction = "maximize"
confidence = "single"
command = ["{python}", "score.py"]

[failures]
oom = "MemoryError"
"""
SCORE = "print(open('result.txt').read())\n"
WORK = "open('result.txt', 'w').write('1.0')\n"
UNTIL_TOLD = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\n" + WORK
"""A run that is on until `let_go`, however slow the machine is: what a test does meanwhile is sure to happen meanwhile."""
WAITS_FOR_DATA = """
[data]
prepare = ["{python}", "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'x').write_text('1')", "{data}"]
train = ["x"]
"""
"""For the toy task: its training begins when it asks for data, and not with its process."""
PATIENCE = 120  # seconds for what takes one or two on a machine that is not busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals the long tests out to the processes that tests are run by: each takes an equal part of the list, from its beginning. Those
    of one function stay together, for what one has found out may spare the next.
    """
    long: dict[str, list[pytest.Item]] = {}
    others: list[pytest.Item] = []
    for item in items:
        is_long = item.get_closest_marker("long") is not None
        (long.setdefault(item.nodeid.partition("[")[0], []) if is_long else others).append(item)
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    dealt: list[pytest.Item] = []
    for part in range(count):
        dealt += [item for group in list(long.values())[part::count] for item in group]
        room = max(0, len(items) * (part + 1) // count - len(dealt))
        dealt, others = dealt + others[:room], others[room:]
    items[:] = dealt + others


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and slots of this test process alone; a git without any configuration of the user's. Tests run beside each other, so
    no run of theirs counts as disturbed, unless a test is about that.
    """
    cache = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("AUTORESEARCH_CACHE", str(cache))
    patch.setenv(disturbance.SETTING, "100")
    patch.setenv(places.SETTING, runs := tempfile.mkdtemp(prefix="runs-", dir=places.SHARED))
    os.chmod(runs, 0o711)
    patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    patch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR_", "GIT_COMMITTER_"))]:
        patch.delenv(name)
    yield
    patch.undo()
    shutil.rmtree(runs, ignore_errors=True)


@pytest.fixture
def task_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a task's folder: its TOML (the toy task's if left out) and files by name."""

    def make(toml: str = TOY, **files: str) -> Path:
        folder = tmp_path / "task"
        folder.mkdir(exist_ok=True)
        (folder / "autoresearch.toml").write_text(toml)
        for name, content in ({"work.py": WORK, "score.py": SCORE} | {k.replace("__", "."): v for k, v in files.items()}).items():
            (folder / name).write_text(content)
        return folder

    return make


@pytest.fixture
def toy(tmp_path: Path, task_folder: Callable[..., Path]) -> Callable[..., Session]:
    """Makes a session of the toy task, with `work` as its editable file and changes to the TOML."""

    def make(work: str = WORK, toml: str = TOY, **changes: str) -> Session:
        for old, new in changes.items():
            toml = toml.replace(f"{old} = ", f"{old} = {new}  # was: ")
        folder = task_folder(toml, work__py=textwrap.dedent(work))
        return open_session(create(tmp_path / "workspace", str(folder)).root)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch keeps to one core: small products are faster so."""
    import torch  # here, because few tests need it and it takes a second

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def notes(tmp_path: Path) -> Session:
    """A session of the bundled notes task: nothing runs, a text file is scored."""
    return open_session(create(tmp_path / "workspace", "notes").root)


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a level in force; skips the test where this machine cannot enforce it."""
    import needs  # here, because pytest loads it as a plugin

    def apply(level: str) -> None:
        if level != "none":
            needs.require(level)
        monkeypatch.setenv(sandbox.OVERRIDE, level)
        sandbox.detect.cache_clear()

    yield apply
    sandbox.detect.cache_clear()


def open_session(root: Path, tag: str | None = None) -> Session:
    workspace = Workspace(root)
    return Session.start(workspace, open_ledger(workspace), tag)


def run(session: Session, description: str = "an idea", **options: bool) -> int:
    """Runs an experiment to its end and returns its number."""
    number, _ = session.run_experiment(description, **options)
    wait_for(lambda: is_decided(session, number))
    settle_processes(session, number)
    return number


def is_over(session: Session, number: int) -> bool:
    """Whether the experiment's run has ended, or is found to be lost."""
    session.refresh()
    return not session.experiment(number).running


def is_decided(session: Session, number: int) -> bool:
    """The same, with the runs that the server makes by itself."""
    session.advance()
    return not session.waits(number)


def settle_processes(session: Session, number: int) -> None:
    """Waits until the run's host itself is gone: the result is recorded a moment earlier."""
    spec = spec_of(session, number)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not session.executor.is_alive(spec):
            return
        time.sleep(0.02)
    raise AssertionError("the supervisor did not end")


def ended(session: Session, number: int = 1) -> RunEnded:
    """The last result of an experiment."""
    last = session.experiment(number).last
    assert last is not None
    return last


def spec_of(session: Session, number: int) -> RunSpec:
    spec = session.spec(session.experiment(number).runs[-1].started.run)
    assert spec is not None
    return spec


def replace(session: Session, text: str) -> None:
    """Replaces the whole editable file through a patch."""
    old = session.read().text.splitlines()
    lines = [f"@@ -1,{len(old)} +1,{len(text.splitlines())} @@"]
    lines += [f"-{line}" for line in old] + [f"+{line}" for line in text.splitlines()]
    session.apply_patch("\n".join(lines) + "\n")


def let_go(session: Session, number: int = 1) -> None:
    """Lets an experiment of UNTIL_TOLD end, if it has not."""
    with suppress(FileNotFoundError):
        (spec_of(session, number).work / "go").touch()


class Interrupt:
    """Watches a queue of runs, and gives up as Ctrl-C does when so many have ended."""

    def __init__(self, after: int):
        self._after = after
        self.ended: list[int] = []
        """Their numbers."""

    def __call__(self, at: Moment) -> None:
        if at.ended:
            self.ended.append(at.ended.run)
        if len(self.ended) == self._after:
            raise KeyboardInterrupt


def lay_out(folder: Path, work: str = WORK, toml: str = TOY, **changes: str) -> RunSpec:
    """A run of the toy task, laid out and not started, with no session around it."""
    for old, new in changes.items():
        toml = toml.replace(f"{old} = ", f"{old} = {new}  # was: ")
    spec = RunSpec(
        run=1,
        experiment=1,
        tag="test",
        seed=42,
        task=parse_task(toml),
        folder=folder / "runs" / "1",
        ledger=folder / "ledger.db",
        results=folder / "results.tsv",
        data=None,
        enforcement=detect().level,
    )
    for place in (spec.work, spec.scoring):
        place.mkdir(parents=True)
        (place / "work.py").write_text(textwrap.dedent(work))
        (place / "score.py").write_text(SCORE)
    spec.path.write_text(spec.model_dump_json())
    return spec


ALONE = """
import sys
from pathlib import Path
import anyio
from autoresearch_mcp.run import processes, supervisor
from autoresearch_mcp.run.spec import RunSpec

async def deliver(ended):
    print("delivered " + ended.model_dump_json(), flush=True)
    return True

@BROKEN@
processes.become_subreaper()
anyio.run(supervisor.Supervisor(RunSpec.read(Path(sys.argv[1])), deliver).supervise)
"""


def supervise(spec: RunSpec, broken: str = "") -> list[RunEnded]:
    """What a supervisor delivers, in a process of its own, with no host; `broken` is what goes wrong in it."""
    command = [sys.executable, "-c", ALONE.replace("@BROKEN@", broken), str(spec.folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    lines = [line.removeprefix("delivered ") for line in result.stdout.splitlines() if line.startswith("delivered ")]
    return [RunEnded.model_validate_json(line) for line in lines]


def gone(process: psutil.Process) -> bool:
    """Whether it has ended, collected or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def supervisor_of(session: Session, number: int) -> psutil.Process:
    """The process that hosts an experiment's run, its supervisor in it."""
    path = spec_of(session, number).progress
    wait_for(lambda: Progress.read(path).pid)
    return psutil.Process(Progress.read(path).pid)


def log_of(session: Session, number: int) -> str:
    """What the run has printed so far."""
    path = spec_of(session, number).log
    return path.read_text(errors="replace") if path.exists() else ""


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout.strip()


@asynccontextmanager
async def connect(root: Path, *options: str, mode: str = "auto"):
    """A real MCP client on a real server over stdio."""
    arguments = ["-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root), *options]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    async with Client(stdio_client(server), mode=mode) as client:
        yield client


def text_of(result: object) -> str:
    return "\n".join(getattr(block, "text", "") for block in result.content)  # type: ignore[attr-defined]
