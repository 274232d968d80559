"""Slots of the machine's hardware: who gets one, who waits, who is refused."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from autoresearch_mcp.files import try_lock
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import gpus, slots
from autoresearch_mcp.run.hardware import Granted, granted
from autoresearch_mcp.run.slots import Slot
from autoresearch_mcp.sections import Run
from conftest import UNTIL_TOLD, ended, let_go, open_session, run, spec_of, wait_for

Make = Callable[..., Session]
DONE = "open('result.txt', 'w').write('1')\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine one with the given device files."""

    def make(*devices: str, visible: str | None = None) -> None:
        for name in devices:
            (tmp_path / name).touch()
        monkeypatch.setattr(gpus, "DEVICES", tmp_path)
        monkeypatch.setattr(gpus, "DRIVER", tmp_path / "nothing")
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def test_a_gpu_of_several_is_a_share_also_where_the_others_are_hidden(machine: Callable[..., None]):
    """What others do on theirs, as a cluster's scheduler gives them out, makes no class of hardware of its own."""
    machine("nvidia0", "nvidia1", visible="1")
    assert slots.offered()["gpu"] == ["gpu1"] and Slot(("gpu1",)).is_share
    machine(visible="0,1")
    assert not Slot(("gpu0", "gpu1")).is_share


def test_what_is_offered_of_one_kind_has_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(slots.SETTING, f"disk={10**12} board=2")
    assert {kind: len(names) for kind, names in slots.offered().items() if kind in ("disk", "board")} == {
        "disk": slots.MOST,
        "board": 2,
    }


@pytest.mark.parametrize(
    ("devices", "visible", "gpus"),
    [
        ([], None, []),
        (["nvidiactl"], None, []),
        (["nvidia0", "nvidia10", "nvidia2", "nvidiactl"], None, ["gpu0", "gpu2", "gpu10"]),
        (["nvidia0", "nvidia1"], "1", ["gpu1"]),
        (["nvidia0", "nvidia1"], "", []),
        (["nvidia0"], "-1", []),
        (["nvidia3"], None, ["gpu3"]),
        (["nvidia3", "nvidia5"], "1,0", ["gpu5", "gpu3"]),
        (["nvidia1", "nvidia2"], "1,2,0", ["gpu2"]),  # what CUDA stops reading at
        (["nvidia0", "nvidia1"], "0,-1,1", ["gpu0"]),
        (["nvidia0"], "NoDevFiles", []),  # as Slurm has it for a job without GPUs
        (["nvidia0", "nvidia3x"], None, ["gpu0"]),
        (["nvidia0", "nvidia1"], "1,1,0", ["gpu1", "gpu0"]),
        (["nvidia0"], "GPU-3c1", ["gpuGPU-3c1"]),
        ([], "0", []),
    ],
)
def test_the_slots_that_there_are_and_those_that_will_do(
    machine: Callable[..., None], devices: list[str], visible: str | None, gpus: list[str]
):
    machine(*devices, visible=visible)
    assert slots.offered()["gpu"] == gpus
    assert slots.needs(Run()) == ({"gpu": 1} if gpus else {"core": granted().threads})
    assert slots.needs(Run(device="cpu")) == {"core": granted().threads}
    assert (slots.refusal(Run(device="gpu")) is None) == bool(gpus)
    assert slots.refusal(Run()) is None and slots.refusal(Run(device="cpu")) is None
    assert Slot(tuple(gpus)).gpus == [name.removeprefix("gpu") for name in gpus] and Slot(tuple(gpus)).cores == []


def test_a_refusal_says_what_was_found_and_what_to_do(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    machine("nvidia0", visible="-1")
    reason = slots.refusal(Run(device="gpu")) or ""
    assert "1 files" in reason and "CUDA_VISIBLE_DEVICES is '-1'" in reason and 'run.device = "auto"' in reason
    machine("nvidia0")
    assert "wants 2 GPUs a run (run.gpus), and this machine offers 1" in (slots.refusal(Run(device="gpu", gpus=2)) or "")
    assert "wants 999 physical cores" in (slots.refusal(Run(cpus=999)) or "")
    monkeypatch.setenv(slots.SETTING, "simulator=1 gpu=8 nonsense")
    assert slots.refusal(Run(resources={"simulator": 1})) is None
    assert 'AUTORESEARCH_RESOURCES="simulator=2"' in (slots.refusal(Run(resources={"simulator": 2})) or "")
    assert "offers 0" in (slots.refusal(Run(resources={"board": 1})) or "")
    assert slots.offered()["gpu"] == ["gpu0"], "what there is of GPUs nobody can say"


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine of eight physical cores with two threads each, two GPUs and a simulator; its folder of slots."""
    cores = Granted(tuple(range(16)), 16.0, 8, tuple((core, core + 8) for core in range(8)))
    monkeypatch.setattr(slots, "granted", lambda: cores)
    monkeypatch.setattr(gpus, "indices", lambda: ["0", "1"])
    monkeypatch.setenv(slots.SETTING, "simulator=1")
    yield tmp_path / "slots"
    for held in TAKEN:
        held.release()
    TAKEN.clear()


TAKEN: list[slots.Held] = []


def take(folder: Path, session: str = "s", patience: float = 0.0, **wishes: Any) -> slots.Held | None:
    deadline = time.monotonic() + patience
    run = Run(device="cpu", **wishes) if "device" not in wishes else Run(**wishes)
    held = anyio.run(slots.take_slot, folder, run, session, lambda: time.monotonic() >= deadline)
    TAKEN.extend([held] if held else [])
    return held


def test_runs_share_a_machine_and_no_core_twice(eight: Path):
    held = [take(eight, cpus=3), take(eight, cpus=3)]
    assert [str(each and each.slot) for each in held] == ["cores 0-2", "cores 3-5"]
    assert take(eight, cpus=3) is None, "two are left"
    last = take(eight, cpus=2)
    assert last is not None and last.slot.of(slots.granted()).cores == (6, 7, 14, 15)
    assert take(eight, cpus=1) is None and take(eight) is None
    gpu = take(eight, device="gpu")
    assert gpu is not None and gpu.slot.gpus == ["0"] and gpu.slot.of(slots.granted()) == slots.granted()
    assert held[0] is not None
    held[0].release()
    again = take(eight, cpus=2)
    assert again is not None and again.slot.cores == [0, 1]


def test_a_run_takes_all_that_it_needs_or_nothing(eight: Path):
    whole = take(eight)
    assert whole is not None and str(whole.slot) == "cpu" and not whole.slot.is_share
    assert take(eight, device="gpu", gpus=2, cpus=1) is None
    assert {use.kind: use.used for use in slots.in_use(eight)} == {"gpu": 0, "core": 8, "simulator": 0}
    both = take(eight, device="gpu", gpus=2, resources={"simulator": 1})
    assert both is not None and str(both.slot) == "gpu0 gpu1 simulator.0" and not both.slot.is_share
    assert take(eight, device="gpu") is None
    both.release()
    one = take(eight, device="gpu")
    assert one is not None and one.slot.is_share


def test_a_run_that_hardly_computes_takes_no_core(eight: Path):
    held = [take(eight), take(eight, cpus=0, resources={"simulator": 1}), take(eight, cpus=0)]
    assert [str(each and each.slot) for each in held] == ["cpu", "simulator.0", ""]
    assert take(eight, cpus=0, resources={"simulator": 1}) is None


def test_what_a_run_will_have_is_known_where_there_is_no_choice(eight: Path):
    assert slots.only(Run(device="cpu")) == Slot(tuple(f"core{core}" for core in range(8)))
    assert slots.only(Run(device="gpu", gpus=2)) == Slot(("gpu0", "gpu1"))
    assert slots.only(Run(device="gpu")) is None and slots.only(Run(cpus=4)) is None


def test_sessions_take_turns_and_of_one_the_oldest_comes_first(eight: Path):
    """Three of one session wait, then one of another: it is served second, though it came last."""
    served: list[str] = []

    async def run(name: str, session: str) -> None:
        held = await slots.take_slot(eight, Run(device="cpu"), session, lambda: False)
        assert held is not None
        served.append(name)
        await anyio.sleep(0.05)
        held.release()

    async def go() -> None:
        first = await slots.take_slot(eight, Run(device="cpu"), "many", lambda: False)
        assert first is not None
        async with anyio.create_task_group() as tasks:
            for name, session in (("a", "many"), ("b", "many"), ("c", "many"), ("z", "one")):
                tasks.start_soon(run, name, session)
                await anyio.sleep(0.15)
            assert [use.waiting for use in slots.in_use(eight) if use.kind == "core"] == [4]
            first.release()

    anyio.run(go)
    assert served == ["z", "a", "b", "c"]
    assert list((eight / "queue").iterdir()) == []


def test_a_large_run_is_not_starved_by_small_ones(eight: Path):
    """Who wants all cores waits for a small run; another small run that comes later does not slip in between."""
    order: list[str] = []

    async def run(name: str, **wishes: Any) -> None:
        held = await slots.take_slot(eight, Run(device="cpu", **wishes), name, lambda: False)
        assert held is not None
        order.append(name)
        held.release()

    async def go() -> None:
        small = await slots.take_slot(eight, Run(device="cpu", cpus=1), "small", lambda: False)
        assert small is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "large")
            await anyio.sleep(0.3)
            tasks.start_soon(partial(run, "later", cpus=1))
            tasks.start_soon(partial(run, "on a GPU", cpus=None, resources={"simulator": 1}, gpus=1))
            await anyio.sleep(0.5)
            assert order == []
            small.release()

    anyio.run(go)
    assert order[0] == "large" and sorted(order) == ["large", "later", "on a GPU"]


def test_who_waits_for_one_thing_keeps_no_more_of_another_than_it_wants(eight: Path):
    gpus = take(eight, device="gpu", gpus=2)
    assert gpus is not None

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            wants = Run(device="gpu", gpus=2, cpus=3)
            tasks.start_soon(slots.take_slot, eight, wants, "waits", lambda: False)
            await anyio.to_thread.run_sync(wait_for, lambda: slots.waiting(eight))
            beside = await slots.take_slot(eight, Run(device="cpu", cpus=5), "beside", lambda: False)
            assert beside is not None and beside.slot.cores == [3, 4, 5, 6, 7]
            beside.release()
            tasks.cancel_scope.cancel()

    anyio.run(go)
    assert list((eight / "queue").iterdir()) == []


def test_what_is_only_made_ready_comes_last(eight: Path):
    served: list[str] = []

    async def run(session: str) -> None:
        held = await slots.take_slot(eight, Run(device="cpu"), session, lambda: False)
        assert held is not None
        served.append(session)
        held.release()

    async def go() -> None:
        first = await slots.take_slot(eight, Run(device="cpu"), "s", lambda: False)
        assert first is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, f"new{slots.READY}")
            await anyio.sleep(0.3)
            tasks.start_soon(run, "s")
            await anyio.sleep(0.3)
            first.release()

    anyio.run(go)
    assert served == ["s", f"new{slots.READY}"]


def test_the_ticket_of_a_dead_waiter_is_in_nobodys_way(eight: Path):
    code = (
        "import anyio, sys\nfrom pathlib import Path\nfrom autoresearch_mcp.run import slots\n"
        "from autoresearch_mcp.sections import Run\n"
        "anyio.run(slots.take_slot, Path(sys.argv[1]), Run(device='cpu'), 'dies', lambda: False)\n"
    )
    everything = [try_lock(eight / f"{name}.lock") for names in slots.offered().values() for name in names]
    waiter = subprocess.Popen([sys.executable, "-c", code, str(eight)])
    wait_for(lambda: slots.waiting(eight))
    waiter.kill()
    waiter.wait()
    for descriptor in everything:
        assert descriptor is not None
        os.close(descriptor)
    assert take(eight, "lives") is not None and slots.waiting(eight) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"session": 3}', '{"wanted": {}}'])
def test_a_ticket_that_says_nothing_is_in_nobodys_way(eight: Path, content: str):
    queue = eight / "queue"
    queue.mkdir(parents=True)
    path = queue / "1.000000-1-2.json"
    path.write_text(content)
    held = try_lock(path)
    assert held is not None
    assert take(eight, "lives") is not None
    os.close(held)


@pytest.mark.skipif(bool(gpus.indices()), reason="this machine has a GPU")
def test_a_task_that_demands_a_gpu_is_refused_without_one(toy: Make):
    session = toy(DONE, budget_seconds='20\ndevice = "gpu"')
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("refused", "refused")
    assert "demands a GPU" in ended(session).excerpt and 'preset = "cpu"' in ended(session).excerpt


@pytest.mark.slow
def test_runs_of_two_workspaces_wait_for_each_other(tmp_path: Path, toy: Make):
    from autoresearch_mcp.create import create

    session = toy(UNTIL_TOLD)
    other = open_session(create(tmp_path / "other", "notes").root)
    session.run_experiment("holds the slot")
    wait_for(lambda: session.progress().phase == "training")
    other.run_experiment("waits")
    wait_for(lambda: spec_of(other, 1).progress.exists())
    time.sleep(0.5)
    assert other.progress().phase == "queued"
    let_go(session)
    wait_for(lambda: not other.state.running)
    assert ended(other).seconds["queued"] >= 0.5
    wait_for(lambda: not session.state.running)
