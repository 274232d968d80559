"""What is made ready between runs: it serves the next run and no other, changes nothing but the time, and is gone when nobody needs it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from autoresearch_mcp.executors import ready
from autoresearch_mcp.executors.local import READY, LocalExecutor
from autoresearch_mcp.files import try_lock
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import places, slots
from autoresearch_mcp.run.inside import waiting as inside
from autoresearch_mcp.run.processes import MARK
from conftest import (
    TOY,
    UNTIL_TOLD,
    connect,
    ended,
    gone,
    is_over,
    let_go,
    log_of,
    open_session,
    replace,
    run,
    spec_of,
    text_of,
    wait_for,
)

Make = Callable[..., Session]
PRELOADS = TOY.replace('outputs = ["result.txt"]', 'outputs = ["result.txt"]\npreload = ["decimal", "no_such_module"]')
EARLY = PRELOADS.replace(
    'command = ["{python}", "score.py"]',
    """command = ["{python}", "-c", "print('loaded', flush=True); input(); print(open('result.txt').read())"]\nstarts_early = true""",
)
"""Its scoring command waits as well."""
TELLS = """
import json, os, sys
seen = {
    "waited": "decimal" in sys.modules,
    "name": __name__,
    "file": __file__,
    "argv": sys.argv,
    "path": sys.path[0],
    "seed": os.environ["AUTORESEARCH_SEED"],
    "stdin": sys.stdin.read(),
    "main": sys.modules["__main__"].__dict__ is globals(),
    "names": sorted(set(globals())),
    "open": len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
    "environment": sorted(os.environ),
    "threads": len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1,
    "limits": open("/proc/self/limits").read() if os.path.exists("/proc/self/limits") else "",
}
print(json.dumps(seen))
open("result.txt", "w").write("1.0")
"""
SUBMITS = """
import socket
server = socket.socket(fileno=int(os.environ["AUTORESEARCH_SOCKET"]))
server.sendall(b'{"op": "submit"}\\n')
print(server.recv(1000))
"""
LEVELS = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    with tempfile.TemporaryDirectory(prefix="ready-", dir=places.SHARED, ignore_cleanup_errors=True) as runs:
        os.chmod(runs, 0o711)
        monkeypatch.setenv(places.SETTING, runs)
        yield
        READY.end()


def waiting(place: int = 0) -> psutil.Process:
    """The host that waits, of several the one in this place, when everything in it is ready: then it has children and no slot."""
    now = READY.waiting[place]
    process = psutil.Process(now.host.pid)

    def is_ready() -> bool:
        return bool(process.children()) and process.pid not in slots.holders(slots.slots_folder())

    wait_for(lambda: is_ready() or not now.alive)
    assert now.alive, now.draft.host_log.read_text()
    return process


def two_wait(session: Session) -> tuple[psutil.Process, psutil.Process]:
    """Asks as a server does until two hosts wait."""

    def asked() -> bool:
        session.runs.get_ready()
        return len(READY.waiting) == 2

    wait_for(asked)
    return waiting(0), waiting(1)


def ready_folders() -> list[Path]:
    return sorted(places.root().glob("ready-*"))


def used(session: Session, number: int) -> bool:
    """Whether an experiment's last run was given to what waited."""
    return spec_of(session, number).home.name.startswith("ready-")


@pytest.mark.parametrize("level", ["none", *LEVELS])
def test_a_run_finds_its_modules_imported_and_everything_else_as_without(
    toy: Make, tmp_path: Path, force: Callable[[str], None], level: str
):
    force(level)
    session = toy(TELLS)
    plain = json.loads(log_of(session, run(session)))
    session.workspace.root.rename(tmp_path / "plain")
    session = toy(TELLS, PRELOADS)
    at_once = json.loads(log_of(session, run(session)))
    session.runs.get_ready()
    waiting()
    run(session, replicate=True)
    made_ready = json.loads(log_of(session, 1))
    assert [seen["waited"] for seen in (plain, at_once, made_ready)] == [False, True, True] and used(session, 1)
    assert [seen["seed"] for seen in (plain, at_once, made_ready)] == ["42", "42", "43"]
    for seen in (plain, at_once, made_ready):
        seen["path"], seen["file"] = Path(seen["path"]).name, Path(seen["file"]).name
        seen["limits"] = "\n".join(line for line in seen["limits"].splitlines() if "realtime" not in line)
        del seen["waited"], seen["seed"]
    assert plain == at_once == made_ready
    first, second = (experiment_run.ended for experiment_run in session.experiment(1).runs)
    assert first is not None and second is not None and first.enforcement == second.enforcement == level
    assert ready_folders() == []


def test_the_scoring_command_waits_too_and_scores(toy: Make):
    session = toy(TELLS + SUBMITS, EARLY)
    session.runs.get_ready()
    waiting()
    run(session)
    assert used(session, 1) and ended(session).score == 1.0 and '"score": 1.0' in log_of(session, 1)
    assert "loaded" not in spec_of(session, 1).scoring_log.read_text(), "that was said before the run came"


def test_a_failure_reads_as_it_does_without(toy: Make, tmp_path: Path):
    fails = "import json\n\n\ndef inner():\n    return {}['lost']\n\n\ninner()\n"
    session = toy(fails)
    run(session)
    plain = ended(session)
    session.workspace.root.rename(tmp_path / "plain")
    session = toy(fails, PRELOADS)
    run(session)
    assert (ended(session).failure, ended(session).excerpt) == (plain.failure, plain.excerpt)
    replace(session, session.read().text.replace("lost", "gone"))
    session.runs.get_ready()
    waiting()
    run(session)
    assert used(session, 2)
    assert (ended(session, 2).failure, ended(session, 2).excerpt.replace("gone", "lost")) == (plain.failure, plain.excerpt)
    replace(session, "import sys\nprint('leaving')\nsys.exit(3)\n")
    session.runs.get_ready()
    waiting()
    run(session)
    assert used(session, 3) and "exit status 3" in ended(session, 3).excerpt and "leaving" in ended(session, 3).excerpt


def test_it_serves_one_run_and_leaves_nothing_for_the_next(toy: Make):
    leaves = "import decimal, os\nprint(os.getpid(), hasattr(decimal, 'left'), os.listdir('.'))\ndecimal.left = 1\n"
    leaves += "open('left', 'w').write('x')\nopen('result.txt', 'w').write('1.0')\n"
    session = toy(leaves, PRELOADS)
    said: list[str] = []
    for again in (False, True):
        session.runs.get_ready()
        waiting()
        run(session, replicate=again)
        assert used(session, 1)
        said.append(log_of(session, 1))
    assert said[0].split()[0] != said[1].split()[0] or "bubblewrap" in (ended(session).enforcement or "")
    assert all("False" in line and "'left'" not in line for line in said)


def test_two_wait_so_that_a_run_that_follows_at_once_finds_one_too(toy: Make):
    session = toy(TELLS, PRELOADS)
    first, second = two_wait(session)
    session.runs.get_ready()
    assert len(READY.waiting) == len(ready_folders()) == 2 and first.pid != second.pid
    run(session)
    assert used(session, 1) and READY.waiting[0].host.pid == second.pid and second.is_running()
    run(session, replicate=True)
    assert used(session, 1) and READY.waiting == []
    run(session, replicate=True)
    assert not used(session, 1)
    assert [one.ended.score for one in session.experiment(1).runs if one.ended] == [1.0, 1.0, 1.0]


def test_one_waits_where_memory_is_short(toy: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ready, "ROOM", 1 << 60)
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    process = waiting()
    session.runs.get_ready()
    assert [one.host.pid for one in READY.waiting] == [process.pid] and len(ready_folders()) == 1


def test_the_sessions_of_a_process_share_what_waits(toy: Make):
    session = toy(TELLS, PRELOADS)
    other = open_session(session.workspace.root, tag="other")
    two_wait(session)
    other.runs.get_ready()
    assert len(READY.waiting) == 2
    run(other)
    assert used(other, other.state.experiments[-1].number) and len(READY.waiting) == 1


def test_what_waits_gives_way_to_another_kind_when_nobody_has_asked_for_its_own(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(TELLS, PRELOADS)
    first, second = two_wait(session)
    session.runs.pinned["score.py"] += b"# changed\n"  # stands for another session of this process
    session.runs.get_ready()
    assert [one.host.pid for one in READY.waiting] == [first.pid, second.pid]
    monkeypatch.setattr(ready, "LONG", 0.0)
    session.runs.get_ready()
    third = waiting(1)
    session.runs.get_ready()
    assert [one.host.pid for one in READY.waiting] == [second.pid, third.pid] and gone(first)
    assert len(ready_folders()) == 2


def test_a_run_of_another_kind_is_not_given_to_it(toy: Make):
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    process = waiting()
    session.runs.pinned["score.py"] += b"# changed\n"
    run(session)
    assert not used(session, 1) and ended(session).score == 1.0
    assert process.is_running() and len(ready_folders()) == 1


@pytest.mark.parametrize("who", ["host", "run", "scoring"])
def test_what_dies_while_it_waits_costs_no_run(toy: Make, who: str):
    session = toy(TELLS, EARLY)
    session.runs.get_ready()
    process = waiting()
    if who == "host":
        process.kill()
    else:
        children = process.children()
        assert len(children) == 2
        (children[0] if who == "run" else children[1]).kill()
    run(session)
    assert ended(session).score == 1.0
    assert json.loads(log_of(session, 1))["waited"], "whether it was one that waited or one made now"
    assert ready_folders() == []


def test_it_ends_with_the_process_that_asked_for_it(toy: Make):
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    process = waiting()
    below = process.children(recursive=True)
    READY.waiting[0].socket.close()  # as the kernel does when a server dies
    wait_for(lambda: all(map(gone, (process, *below))))
    assert ready_folders() == []
    run(session)
    assert ended(session).score == 1.0


def test_it_ends_when_nobody_comes(toy: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoresearch_mcp.executors.local.IDLE", 0.5)
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    (now,) = READY.waiting
    wait_for(lambda: not now.alive)
    assert now.host.returncode == 0 and ready_folders() == []
    run(session)
    assert ended(session).score == 1.0


def test_what_a_killed_one_left_is_swept(toy: Make):
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    process = waiting()
    below = process.children(recursive=True)
    process.send_signal(signal.SIGKILL)
    wait_for(lambda: all(map(gone, below)))
    assert len(ready_folders()) == 1
    wait_for(lambda: (LocalExecutor().sweep("ready"), ready_folders() == [])[1])


def test_nothing_is_made_ready_while_a_run_is_on(toy: Make):
    """Neither in its session nor in another: no run is disturbed."""
    session = toy(UNTIL_TOLD, PRELOADS)
    number, _ = session.run_experiment("is on")
    session.runs.get_ready()
    wait_for(lambda: session.progress().phase == "training")
    draft = session.runs._spec(run=0, experiment=0, seed=1)  # pyright: ignore[reportPrivateUsage]
    session.executor.get_ready(draft, session.runs.pinned)  # as another session would
    assert READY.waiting == [] and ready_folders() == []
    let_go(session, number)
    wait_for(lambda: is_over(session, number))


@contextmanager
def slots_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As another run would that took them in the moment in which a host was started."""
    folder = slots.slots_folder()
    folder.mkdir(parents=True)
    held = [try_lock(folder / f"{name}.lock") for name in slots.first().names]
    monkeypatch.setattr(slots, "is_free", lambda *_: True)
    yield
    for descriptor in held:
        assert descriptor is not None
        os.close(descriptor)


def test_nothing_is_imported_before_the_slot_is_free(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(TELLS, PRELOADS)
    with slots_held(monkeypatch):
        session.runs.get_ready()
        wait_for(lambda: slots.waiting(slots.slots_folder()))
        time.sleep(0.5)
        assert psutil.Process(READY.waiting[0].host.pid).children() == []
        assert all(use.waiting == 0 for use in session.executor.in_use()), "it is no run that waits"
    waiting()


def test_a_run_that_comes_while_it_waits_for_the_slot_is_hosted_all_the_same(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(TELLS, PRELOADS)
    with slots_held(monkeypatch):
        session.runs.get_ready()
        number, _ = session.run_experiment("comes early")
        assert used(session, number)
        wait_for(lambda: session.progress().pid)  # from here on the run itself waits
    wait_for(lambda: is_over(session, number))
    assert ended(session).score == 1.0 and json.loads(log_of(session, 1))["waited"]


def loads_slowly(session: Session, flag: Path) -> tuple[psutil.Process, list[psutil.Process]]:
    """A host that is being made ready for a minute, which has begun when this returns, and its processes."""
    session.runs.get_ready()
    host = psutil.Process(READY.waiting[0].host.pid)
    wait_for(lambda: not flag.exists())
    begun = host.children()
    assert host.pid in slots.holders(slots.slots_folder()) and len(begun) == 2
    return host, begun


def slow(tmp_path: Path) -> tuple[str, Path]:
    """A task whose scoring command loads slowly the first time, and what is gone when it has begun to."""
    flag = tmp_path / "slow"
    flag.mkdir()
    loads = f"import os, time; os.path.exists('{flag}') and time.sleep(60 + (os.rmdir('{flag}') or 0)); print('loaded'"
    return EARLY.replace("print('loaded'", loads), flag


def test_no_run_of_another_kind_waits_for_what_is_being_made_ready(toy: Make, force: Callable[[str], None], tmp_path: Path):
    force("none")
    toml, flag = slow(tmp_path)
    session = toy(TELLS, toml)
    host, begun = loads_slowly(session, flag)
    session.runs.pinned["score.py"] += b"# changed\n"
    started = time.monotonic()
    run(session)
    assert not used(session, 1) and ended(session).score == 1.0
    assert time.monotonic() - started < 30, "it waited until everything was loaded"
    assert waiting().pid == host.pid, "which is done when the run is over"
    assert all(map(gone, begun)) and READY.waiting[0].loaded


def test_a_run_of_its_kind_waits_for_what_is_being_made_ready_and_has_it(toy: Make, force: Callable[[str], None], tmp_path: Path):
    force("none")
    toml, flag = slow(tmp_path)
    session = toy(TELLS + SUBMITS, toml.replace("time.sleep(60", "time.sleep(3"))
    _, begun = loads_slowly(session, flag)
    run(session)
    assert used(session, 1) and ended(session).score == 1.0 and all(map(gone, begun))
    assert "loaded" not in spec_of(session, 1).scoring_log.read_text(), "that was said before the run came"


def test_what_is_being_made_ready_ends_with_the_server(toy: Make, force: Callable[[str], None], tmp_path: Path):
    force("none")
    toml, flag = slow(tmp_path)
    session = toy(TELLS, toml)
    host, begun = loads_slowly(session, flag)
    READY.waiting[0].socket.close()
    wait_for(lambda: all(map(gone, (host, *begun))), seconds=20)
    assert not slots.holders(slots.slots_folder()) and READY.waiting == [] and ready_folders() == []


def test_a_loaded_one_is_taken_before_one_that_is_not(toy: Make):
    session = toy(TELLS, PRELOADS)
    first, second = two_wait(session)
    READY.waiting[0].draft.loaded.unlink()
    run(session)
    assert gone(second) and not gone(first)


def test_a_kind_whose_hosts_fail_is_not_tried_again_at_once(toy: Make, monkeypatch: pytest.MonkeyPatch):
    session = toy(TELLS, PRELOADS)
    monkeypatch.setattr("autoresearch_mcp.executors.local.HOST", "autoresearch_mcp.no_such_host")
    session.runs.get_ready()
    wait_for(lambda: not READY.waiting)
    session.runs.get_ready()
    assert READY.waiting == [] and ready_folders() == []
    monkeypatch.setattr(ready, "BROKEN", 0.0)
    session.runs.get_ready()
    assert len(READY.waiting) == 1


def test_what_importing_raises_is_for_the_file_to_meet(tmp_path: Path):
    (tmp_path / "fails.py").write_text("raise OSError('a library is missing')\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    file = tmp_path / "own" / "file.py"
    file.parent.mkdir()
    file.write_text(
        "import sys\ntry:\n    import confine\nexcept ImportError:\n    print(sys.argv[1:], sys.path[0], sys.stdin.read())\n"
    )
    command = [sys.executable, inside.__file__, "fails", "leaves", "--", str(file), "a", "--"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"['a', '--'] {file.parent} \n"), result.stderr


def test_a_host_that_does_not_answer_is_ended_and_the_run_starts_once(toy: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoresearch_mcp.executors.nursery.ANSWER", 0.2)
    session = toy(TELLS, PRELOADS)
    session.runs.get_ready()
    process = waiting()
    process.suspend()
    run(session)
    assert not process.is_running() and not used(session, 1)
    assert ended(session).score == 1.0 and len(session.experiment(1).runs) == 1


def test_a_run_that_was_given_outlives_the_process_that_gave_it(toy: Make):
    session = toy(UNTIL_TOLD, PRELOADS)
    session.runs.get_ready()
    waiting()
    number, _ = session.run_experiment("goes on")
    wait_for(lambda: session.progress().phase == "training")
    assert used(session, number) and os.getsid(session.progress().pid or os.getpid()) != os.getsid(0)
    session.executor = LocalExecutor()  # the old one, and its end of the socket, are gone
    let_go(session, number)
    wait_for(lambda: is_over(session, number))
    assert ended(session).score == 1.0


def test_it_carries_the_mark_of_its_run(toy: Make):
    """By which strays are found when the host is gone."""
    session = toy(UNTIL_TOLD, PRELOADS)
    session.runs.get_ready()
    waiting()
    number, _ = session.run_experiment("is killed")
    spec = spec_of(session, number)
    wait_for(lambda: session.progress().phase == "training")
    assert spec.mark == spec.model_copy(update={"folder": Path("/elsewhere"), "token": "other"}).mark
    host_process = psutil.Process(session.progress().pid)
    (work,) = [child for child in host_process.children() if child.environ().get(MARK) == str(spec.home)][:1]
    assert work.is_running()
    host_process.kill()
    wait_for(lambda: is_over(session, number))
    assert ended(session, number).failure == "lost" and not spec.home.exists()
    assert gone(work)


def test_a_server_makes_the_next_run_ready_by_itself(toy: Make):
    session = toy(TELLS, PRELOADS)

    async def go() -> str:
        async with connect(session.workspace.root) as client:
            await client.call_tool("status", {})
            await anyio.to_thread.run_sync(partial(wait_for, lambda: any(map(_at_work, ready_folders()))))
            return text_of(await client.call_tool("run_experiment", {"description": "the file as it is", "wait_seconds": 60}))

    assert "1" in anyio.run(go)
    session.refresh()
    assert used(session, 1) and ended(session).score == 1.0
    wait_for(lambda: not ready_folders())


def _at_work(folder: Path) -> bool:
    """Whether a process of a run works in a folder."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                return True
        except psutil.Error:
            continue
    return False
