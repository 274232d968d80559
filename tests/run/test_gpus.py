"""Which GPUs a machine has, and what of them a run is let at."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.run import gpus, nvidia, sandbox
from autoresearch_mcp.run.gpus import Reach
from autoresearch_mcp.run.levels import Confinement

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="by files of Linux")
COMMON = ("nvidiactl", "nvidia-uvm")
CONFINED = [pytest.param(level, marks=pytest.mark.needs(level)) for level in ("landlock", "bubblewrap")]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes this machine one with these device files, beside those that all GPUs have in common; their folder."""

    def make(*numbers: int) -> Path:
        folder = tmp_path / "devices"
        folder.mkdir()
        for name in (*COMMON, *(f"nvidia{number}" for number in numbers)):
            (folder / name).write_text(name)
        monkeypatch.setattr(gpus, "DEVICES", folder)
        monkeypatch.setattr(gpus, "DRIVER", tmp_path / "gpus")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return folder

    return make


def names_of(reach: Reach) -> set[str]:
    return {path.name for path in reach.files}


@LINUX
@pytest.mark.parametrize("gpu", ["1", "GPU-1"])
def test_a_run_is_let_at_its_own_gpu_of_several_and_finds_it_by_a_name_that_counts_nothing(
    driver: None, files: Callable[..., Path], gpu: str
):
    files(0, 1)
    reach = Reach.of([gpu])
    assert reach.names == "GPU-1" and names_of(reach) == {*COMMON, "nvidia1"}


@LINUX
def test_a_run_that_has_all_of_them_counts_them(driver: None, files: Callable[..., Path]):
    files(0, 1)
    reach = Reach.of(["0", "1"])
    assert reach.names == "0,1" and names_of(reach) == {*COMMON, "nvidia0", "nvidia1"}
    assert Reach.of([]) == Reach([], ""), "and one without has none"


@LINUX
def test_in_a_container_that_has_some_of_them_numbers_are_kept_and_places_counted(
    driver: None, files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIRST_GPU", "6")
    files(6, 7)
    assert gpus.indices() == ["6", "7"]
    device = nvidia.device("7")
    assert device is not None and device.uuid == "GPU-1", "the second of those that are there"
    assert nvidia.device("0") is None
    assert Reach.of(["7"]).names == "GPU-1" and Reach.of(["6", "7"]).names == "0,1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.indices() == ["7"], "as CUDA counts them"


@LINUX
def test_places_are_those_on_the_bus_which_device_files_need_not_follow(
    files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files(0, 1, 2, 3, 4)
    for place, minor in (("0000:07:00.0", 2), ("0000:0a:00.0", 3), ("0000:47:00.0", 0), ("0000:4d:00.0", 1), ("0000:87:00.0", 9)):
        (tmp_path / "gpus" / place).mkdir(parents=True)
        (tmp_path / "gpus" / place / "information").write_text(
            f"Model: \t\t NVIDIA A100\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    assert gpus.indices() == ["2", "3", "0", "1", "4"]
    assert Reach.of(["0", "1", "2", "3", "4"]).names == "2,3,0,1,4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert gpus.indices() == ["2", "1"]


@LINUX
def test_where_the_driver_tells_too_little_nothing_is_kept_from_a_run(
    driver: None, files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    """CUDA would count otherwise if some files could not be opened, and the run would have no GPU, or another."""
    files(0, 1)
    monkeypatch.setenv("NUMBERLESS", "1")
    reach = Reach.of(["1"])
    assert reach.names == "1" and names_of(reach) == {*COMMON, "nvidia0", "nvidia1"}
    device = nvidia.device("1")
    assert device is not None and device.uuid == "GPU-1", "by its place then"
    monkeypatch.setattr(nvidia, "LIBRARY", "libnothing-of-this-name.so.1")
    nvidia.device.cache_clear()
    assert Reach.of(["1"]) == reach


@LINUX
@pytest.mark.parametrize("level", CONFINED)
def test_the_others_files_cannot_be_opened(driver: None, files: Callable[..., Path], tmp_path: Path, level: str):
    devices, folder = files(0, 1), tmp_path / "folder"
    (folder / "tmp").mkdir(parents=True)
    code = f"for name in ('nvidiactl', 'nvidia1', 'nvidia0'): print(open('{devices}/' + name).read(), flush=True)"
    command = sandbox.wrap(level, [sys.executable, "-I", "-S", "-c", code], Confinement(folder, devices=Reach.of(["1"]).files))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.stdout.split() == ["nvidiactl", "nvidia1"], done.stderr
    assert "nvidia0" in done.stderr and done.returncode == 1
