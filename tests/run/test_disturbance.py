"""Whether a run was disturbed: by real load of others, and never by anything that it does itself.

A machine that tests run on is never quiet: what they look at is what was found under a name, and not whether there was anything.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import disturbance, slots
from autoresearch_mcp.run.disturbance import Taken
from autoresearch_mcp.run.foreign import Lines, Process
from autoresearch_mcp.run.hardware import Granted
from conftest import lay_out, supervise

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="other processes are watched on Linux alone")]
LEVELS = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]
ITSELF, STRANGER, NEIGHBOUR = (f"{name}{os.getpid() % 10**5}" for name in ("itself", "stranger", "neighbour"))
"""Names of processes: those that other tests start meanwhile, in another process, have others."""

PRELUDE = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(15, b"@NAME@", 0, 0, 0)
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        for _ in range(10000):  # in its own code, not in the kernel
            pass
"""
DONE = "open('result.txt', 'w').write('1')\n"
TELLS = """
import atexit, json
from autoresearch_mcp.run.disturbance import Watch
watches, start = [], Watch.start
Watch.start = lambda self, slot: (watches.append(self), start(self, slot))
def tell():
    found = {phase: taken.by for phase, taken in watches[0]._phases.items()}
    Path(sys.argv[1], "taken.json").write_text(json.dumps(found))
atexit.register(tell)
"""
"""Has a supervisor say at its end all that it found that others took."""
WATCHES = """
import json, sys, time
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.run import slots
from autoresearch_mcp.run.hardware import granted
watch = Watch(granted())
watch.start(slots.first())
print("up", flush=True)
end = time.monotonic() + 3
while time.monotonic() < end:
    time.sleep(0.5)
    watch.look("training")
print(json.dumps([watch.conditions["hardware"], watch._phases["training"].by]))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts somebody else's process, in a session of its own, by a name."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, code: str, *before: str, words: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-c", PRELUDE.replace("@NAME@", name) + code, *words]
        started.append(subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def watched(folder: Path, work: str, level: str = "none", **changes: str) -> tuple[RunEnded, dict[str, dict[str, float]]]:
    """The result of a run through the real supervisor, and the seconds that it found others took, by phase and name."""
    spec = lay_out(folder, PRELUDE.replace("@NAME@", ITSELF) + work + DONE, **changes).model_copy(update={"enforcement": level})
    spec.path.write_text(spec.model_dump_json())
    (one,) = supervise(spec, TELLS)
    return one, json.loads((spec.folder / "taken.json").read_text())


def watching() -> subprocess.Popen[str]:
    """A watch of three seconds, from now on, in a process that nobody here is a child of."""
    process = subprocess.Popen([sys.executable, "-c", WATCHES], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def seen(watch: subprocess.Popen[str]) -> tuple[str, dict[str, float]]:
    """The class of hardware, and seconds by name."""
    hardware, by = json.loads(watch.communicate(timeout=60)[0])
    return hardware, by


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_a_busy_process_of_another_session_marks_the_row(
    tmp_path: Path, start: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(disturbance.SETTING)
    start(STRANGER, "while True: pass\n")
    one, found = watched(tmp_path, "time.sleep(4)\n", budget_seconds="4")
    assert found["training"][STRANGER] > 1
    said = r"other processes \(most: .+\) took [0-9.]+ of [0-9.]+ cores? during training"
    assert re.match(said, one.disturbed) and one.outcome == "scored"
    assert one.hardware and re.fullmatch("[0-9a-f]{8}", one.machine)


def test_load_while_it_is_scored_is_told_from_load_while_it_trains(tmp_path: Path, start: Callable[..., object]):
    start(STRANGER, "while True: pass\n")
    spec = lay_out(tmp_path, DONE)
    (spec.scoring / "score.py").write_text("import time\ntime.sleep(3)\nprint(1)\n")
    supervise(spec, TELLS)
    found = json.loads((spec.folder / "taken.json").read_text())
    assert found["evaluation"][STRANGER] > 1 > found["training"].get(STRANGER, 0)


def test_programs_that_live_for_a_moment_count_when_they_are_collected(start: Callable[..., object]):
    forks = "while True:\n    if os.fork() == 0:\n        burn(0.2)\n        os._exit(0)\n    os.wait()\n"
    parent = start("parent", "print('up', flush=True)\n" + forks)
    assert parent.stdout is not None and parent.stdout.readline() == "up\n"
    _, by = seen(watching())
    assert by["parent"] > 0.5


# --- what is not ------------------------------------------------------------------------------------------------------


def test_a_life_spent_before_is_no_news_when_it_is_collected(start: Callable[..., subprocess.Popen[str]]):
    parent = start(
        "parent",
        "if os.fork() == 0:\n    burn(2)\n    print('spent', flush=True)\n    time.sleep(1)\n    os._exit(0)\nos.wait()\ntime.sleep(60)\n",
    )
    assert parent.stdout is not None and parent.stdout.readline() == "spent\n"
    _, by = seen(watching())
    assert by.get("parent", 0) < 0.5


def test_what_gives_way_does_not_count(start: Callable[..., object]):
    """Else a run that sleeps on purpose would be disturbed by whatever waits for idle cores."""
    watch = watching()
    start("gentle", "while True: pass\n", "nice", "-n", "19")
    start("idle", "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass\n")
    _, by = seen(watch)
    assert by.get("gentle", 0) < 0.1 and by.get("idle", 0) < 0.1


def test_runs_of_other_slots_are_noise_of_the_class_and_no_disturbance(start: Callable[..., subprocess.Popen[str]]):
    holds = (
        "from pathlib import Path\nfrom autoresearch_mcp.files import try_lock\nfrom autoresearch_mcp.run import slots\n"
        f"held = try_lock(Path({str(slots.slots_folder())!r}) / 'gpu7.lock')\nslots._say_who(held)\nprint('up', flush=True)\n"
        "if os.fork() == 0:\n    while True: pass\ntime.sleep(60)\n"
    )
    holder = start(NEIGHBOUR, holds)
    assert holder.stdout is not None and holder.stdout.readline() == "up\n"
    assert slots.holders(slots.slots_folder()) == {holder.pid}
    hardware, by = seen(watching())
    assert hardware.endswith("beside 1 other slot") and by.get(NEIGHBOUR, 0) < 0.1


def test_programs_of_ours_do_not_count(start: Callable[..., object]):
    """A run that prints without end has the server read without end."""
    watch = watching()
    start("server", "while True: pass\n", words=["autoresearch_mcp.cli", "serve"])
    start(STRANGER, "while True: pass\n")
    _, by = seen(watch)
    assert by[STRANGER] > 0.5 > by.get("server", 0)


# --- what a run might try ---------------------------------------------------------------------------------------------

ATTACKS = {
    "orphans that nobody collects": """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
end = time.monotonic() + 3
while time.monotonic() < end:
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            burn(0.2)
        os._exit(0)
    time.sleep(0.2)
""",
    "chains of forks, to be looked at with a parent that has just gone": """
for _ in range(3):
    if os.fork() == 0:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            burn(0.005)
        os._exit(0)
time.sleep(3.5)
""",
    "a daemon without environment": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, ["daemon", "-S", "-c", "while True: pass"], {})
    os._exit(0)
time.sleep(3)
""",
    "crashes, which the system may handle": """
end = time.monotonic() + 3
while time.monotonic() < end:
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.wait()
""",
    "work for the kernel": """
end = time.monotonic() + 3
while time.monotonic() < end:
    with open("large", "wb") as file:
        file.write(bytes(32 << 20))
        os.fsync(file.fileno())
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_run_does_counts_as_others(tmp_path: Path, level: str, attack: str):
    one, found = watched(tmp_path, ATTACKS[attack], level)
    assert one.outcome == "scored", one.excerpt
    ours = [name for phase in found.values() for name in phase if name in (ITSELF, "daemon") or name.startswith("k")]
    assert not ours, found


@pytest.mark.parametrize("level", LEVELS)
def test_a_run_can_neither_leave_its_cores_nor_have_its_crashes_handled(tmp_path: Path, level: str):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    work = (
        f"import resource\nos.sched_setaffinity(0, {cores})\n"
        "try:\n    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n    print('set')\nexcept (OSError, ValueError):\n    print('kept')\n"
        "print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])\n"
    )
    spec = lay_out(tmp_path, PRELUDE.replace("@NAME@", ITSELF) + work + DONE).model_copy(update={"enforcement": level})
    spec.path.write_text(spec.model_dump_json())
    (one,) = supervise(spec, f"import os\nos.sched_setaffinity(0, [{cores[1]}])")
    assert spec.log.read_text() == f"kept\n[{cores[1]}] 1\n", one
    assert one.hardware.endswith(", 1 core")


def test_a_run_that_ends_while_others_are_busy_is_measured_over_its_whole_budget(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(disturbance.SETTING)
    on = Granted((0, 1), 2.0, 2)
    brief = Taken(seconds=3.0, by={"make": 2.0})
    assert not brief.said("during training", on, disturbance.SPAN), "0.67 cores, for three seconds of its choice"
    assert brief.said("during training", on, 5.0) == ["other processes (most: make) took 0.40 of 2 cores during training"]


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (Taken(seconds=60, by={"a": 2.0, "b": 2.4}), ""),  # 2 % of four cores, as a machine at rest takes, is 4.8 s
        (Taken(seconds=60, by={"a": 2.0, "b": 11.0}), "other processes (most: b) took 0.22 of 4 cores during training"),
        (Taken(seconds=60, stolen=30.0), "the host of this virtual machine took 0.50 of 4 cores during training"),
        (Taken(seconds=60, gpu=12.0), "other processes used 20% of the GPU during training"),
        (Taken(seconds=60, braked=6.0), "the GPU was slowed by its power supply for 6 s during training"),
    ],
)
def test_only_what_is_worth_a_mark_is_said(taken: Taken, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(disturbance.SETTING)
    assert taken.said("during training", Granted((0, 1, 2, 3), 4.0, 4), 30.0) == ([said] if said else [])


def test_a_setting_that_is_no_number_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(disturbance.SETTING, "loud")
    assert disturbance.quiet() == disturbance.QUIET


# --- lines of parents -------------------------------------------------------------------------------------------------


def process(parent: int, born: int = 1, kernel: bool = False) -> Process:
    return Process("x", parent, born, 0, 0, False, kernel, False)


def test_only_an_unbroken_line_leads_to_the_first_process():
    lines = Lines(
        {
            1: process(0, 0),
            2: process(0, 0, kernel=True),
            5: process(1),
            6: process(5, 7),
            7: process(99),  # its parent is gone
            8: process(2),  # a helper of the kernel's
            9: process(6, born=3),  # its parent's number is another's by now
        }
    )
    assert lines.of(6) == [6, 5, 1]
    assert [lines.of(pid) for pid in (2, 7, 8, 9)] == [None] * 4


def test_looks_are_shared_among_slots_but_never_far_apart(monkeypatch: pytest.MonkeyPatch):
    watch = disturbance.Watch(Granted((0,), 1.0, 1))
    watch.start(slots.first())
    for others in (0, 1000):
        monkeypatch.setattr(slots, "holders", lambda _, others=others: set(range(10**7, 10**7 + others)))
        watch.look("training")
        pause = watch._next - watch._at  # pyright: ignore[reportPrivateUsage]
        assert disturbance.INTERVAL <= pause <= disturbance.LONGEST + 1, "and the seconds that the look took"
    assert pause >= disturbance.LONGEST
