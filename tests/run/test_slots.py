"""Slots of the machine's hardware: who gets one, who waits, who is refused."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import slots
from conftest import UNTIL_TOLD, ended, let_go, open_session, run, spec_of, wait_for

Make = Callable[..., Session]
DONE = "open('result.txt', 'w').write('1')\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine one with the given device files."""

    def make(*devices: str, visible: str | None = None) -> None:
        for name in devices:
            (tmp_path / name).touch()
        monkeypatch.setattr(slots, "DEVICES", tmp_path)
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


@pytest.mark.parametrize(
    ("devices", "visible", "auto", "gpu"),
    [
        ([], None, ["cpu"], []),
        (["nvidiactl"], None, ["cpu"], []),
        (["nvidia0", "nvidia10", "nvidia2", "nvidiactl"], None, ["gpu0", "gpu2", "gpu10"], ["gpu0", "gpu2", "gpu10"]),
        (["nvidia0", "nvidia1"], "1", ["gpu1"], ["gpu1"]),
        (["nvidia0", "nvidia1"], "", ["cpu"], []),
        (["nvidia0"], "-1", ["cpu"], []),
        ([], "0", ["cpu"], []),
    ],
)
def test_the_slots_that_will_do(
    machine: Callable[..., None], devices: list[str], visible: str | None, auto: list[str], gpu: list[str]
):
    machine(*devices, visible=visible)
    assert slots.candidates("auto") == auto
    assert slots.candidates("gpu") == gpu
    assert slots.candidates("cpu") == ["cpu"]
    assert (slots.refusal("gpu") is None) == bool(gpu)
    assert slots.refusal("auto") is None and slots.refusal("cpu") is None


def test_a_refusal_says_what_was_found_and_what_to_do(machine: Callable[..., None]):
    machine("nvidia0", visible="-1")
    reason = slots.refusal("gpu") or ""
    assert "1 files" in reason and "CUDA_VISIBLE_DEVICES is '-1'" in reason and 'run.device = "auto"' in reason


@pytest.mark.skipif(bool(slots.gpu_indices()), reason="this machine has a GPU")
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
