"""Every hostile train.py in tests/attacks/, at every sandbox level that this machine has.

Each file says what it tries, how that must end, and which preludes it is written with. A file that gets further than it may prints BREACH.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.run import processes
from autoresearch_mcp.sections import LEVELS
from conftest import ROOT, log_of, open_session, run, spec_of

ATTACKS = sorted((Path(__file__).parent / "attacks").glob("*.py"))
TESTED = ("none", "landlock", "bubblewrap") if sys.platform == "linux" else ("none", "seatbelt")
HONEST_BPB = (0.5, 8.0)  # what a model of a second's training can have


@dataclass
class Host:
    """What an attack might harm."""

    secret: Path
    victim: subprocess.Popen[bytes]
    listener: socket.socket
    local: socket.socket
    abstract: socket.socket


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text("secret")
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], env=os.environ | {"VICTIM": "1"})
    listener = socket.create_server(("127.0.0.1", 0))
    local, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    os.chdir(secret.parent)  # paths of unix sockets are short
    local.bind("secret.sock")
    os.chdir(ROOT)
    abstract.bind(f"\0autoresearch-{os.getpid()}")
    for sock in (local, abstract):
        sock.listen()
    yield Host(secret, victim, listener, local, abstract)
    victim.kill()
    for sock in (listener, local, abstract):
        sock.close()


def hostile_session(folder: Path, train: str, proved: bool = False, startup: float = 60) -> Session:
    """A session of the default task, tiny and quick, with `train` as its train.py; with the proof that larger presets demand.
    `startup`: seconds that are free, more than a busy machine takes.
    """
    task = folder / "task"
    shutil.copytree(ROOT / "harness", task, ignore=shutil.ignore_patterns("__pycache__"))
    (task / "train.py").write_text(train)
    toml = (task / "autoresearch.toml").read_text()
    limits = "budget_seconds = 8\nstartup_seconds = 30\ngrace_seconds = 10\n"
    assert limits in toml
    toml = toml.replace(limits, f"budget_seconds = 1.5\nstartup_seconds = {startup}\ngrace_seconds = 8\n")
    if proved:
        probing = '[presets.tiny.metric]\ncommand = ["{python}", "-P", "-m", "autoresearch_mcp.evaluate.bpb", "{data}"]\n'
        assert probing in toml
        toml = toml.replace(probing, "")
    toml = toml.replace("starts_early = true\n", 'starts_early = true\nconfidence = "single"\n')  # one run each
    toml += "\n[sandbox]\nmemory_mb = 1500\nprocesses = 200\ndisk_mb = 300\n"
    (task / "autoresearch.toml").write_text(toml)
    session = open_session(create(folder / "workspace", str(task), "tiny").root)
    session.data.prepare(session.workspace.root)
    return session


def header(attack: Path, name: str, otherwise: str = "") -> str:
    found = re.search(rf"^(?:\"\"\")?{name}: (.*)$", attack.read_text(), re.MULTILINE)
    return found.group(1) if found else otherwise


def program(attack: Path) -> str:
    """The attack's text behind what it is written with."""
    preludes = [attack.parent / "preludes" / f"{name}.py" for name in header(attack, "With").split(", ") if name]
    return "\n\n".join(path.read_text() for path in (*preludes, attack))


def ending(experiment: ExperimentState) -> str:
    assert experiment.last is not None
    return "score" if experiment.score is not None else f"{experiment.last.outcome} {experiment.last.failure}"


ANYWHERE = ("the score", "causality", "the evaluator")
"""Against these no sandbox is needed. Such an attack is tried at the weakest level that it names, where it has most to work with."""


def pairs() -> list[tuple[str, Path]]:
    """Every attack with every level that it concerns: what only a sandbox can stop says so (Needs), and what the supervisor's clock
    alone stops is tried at one (Level: any)."""
    found: list[tuple[str, Path]] = []
    for attack in ATTACKS:
        levels = [level for level in TESTED if LEVELS.index(level) >= LEVELS.index(header(attack, "Needs", "none"))]
        anywhere = header(attack, "Against") in ANYWHERE or header(attack, "Level") == "any"
        found += [(level, attack) for level in (levels[:1] if anywhere else levels)]
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize(("level", "attack"), pairs(), ids=lambda value: value if isinstance(value, str) else value.stem)
def test_an_attack_fails_and_leaves_the_host_unharmed(
    level: str, attack: Path, force: Callable[[str], None], host: Host, tmp_path: Path
):
    force(level)
    places = {
        "@SECRET@": host.secret,
        "@PID@": host.victim.pid,
        "@PORT@": host.listener.getsockname()[1],
        "@ABSTRACT@": f"autoresearch-{os.getpid()}",
        "@WORKSPACE@": tmp_path / "workspace",
        "@SITE@": sysconfig.get_path("purelib"),
        "@CHECKOUT@": ROOT,
    }
    text = program(attack)
    for mark, place in places.items():
        text = text.replace(mark, str(place))
    settings = (header(attack, "Proved") == "yes", 15 if "timeout_startup" in header(attack, "Ends") else 60)
    session = hostile_session(tmp_path, text.replace("@DATA@", "/nowhere"), *settings)
    if "@DATA@" in text:
        shutil.rmtree(tmp_path / "task")
        shutil.rmtree(tmp_path / "workspace")
        session = hostile_session(tmp_path, text.replace("@DATA@", str(session.data.path)), *settings)
    before = session.data.fingerprint()

    run(session, attack.stem)

    experiment = session.experiment(1)
    log = log_of(session, 1)
    assert "BREACH" not in log, log
    assert ending(experiment) in header(attack, "Ends").split(", "), f"{ending(experiment)}\n{experiment.last}\n{log[-3000:]}"
    assert experiment.last is not None and experiment.last.enforcement == level
    if experiment.score is not None:
        assert HONEST_BPB[0] < experiment.score < HONEST_BPB[1]
    # The host is as it was.
    assert host.secret.read_text() == "secret"
    assert not list(host.secret.parent.glob("*pwned*")) and not Path("/tmp/pwned").exists()
    assert host.victim.poll() is None
    for entry in session.data.path.iterdir():
        assert b"pwned" not in entry.read_bytes()[:64]
    assert session.data.fingerprint() == before
    assert open_session(session.workspace.root).position().phase in ("failed", "scored")
    # Nothing of the run is left.
    spec = spec_of(session, 1)
    assert not processes.strays(str(spec.folder))
    assert not [p for p in psutil.process_iter(["cwd"]) if str(p.info["cwd"] or "").startswith(str(spec.folder))]
    assert spec.log.stat().st_size <= session.task.run.log_bytes
    assert not spec.work.exists() and not spec.scoring.exists()


@pytest.mark.slow
@pytest.mark.parametrize("level", TESTED)
def test_an_honest_run_is_normal_at_every_level(level: str, force: Callable[[str], None], tmp_path: Path):
    force(level)
    session = hostile_session(tmp_path, (ROOT / "harness" / "train.py").read_text())
    run(session, "honest")
    assert ending(session.experiment(1)) == "score", session.experiment(1).last
    assert HONEST_BPB[0] < (session.experiment(1).score or 0) < HONEST_BPB[1]


def test_there_are_at_least_thirty_attacks():
    assert len(ATTACKS) >= 30
    assert all(header(attack, name) for attack in ATTACKS for name in ("Tries", "Against", "Ends"))
