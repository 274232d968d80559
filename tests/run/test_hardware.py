"""What a run is on, in words."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch_mcp.run import hardware, nvidia
from autoresearch_mcp.run.hardware import Granted, beside, cpu, granted, machine, quota

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="by files of Linux")


@LINUX
def test_the_class_says_accelerator_processor_and_cores(driver: None):
    on = Granted((0, 1), 2.0, 2)
    assert hardware.hardware([], on, on) == f"{cpu()}, 2 cores"
    assert hardware.hardware(["0"], on, on) == f"NVIDIA H200, 140 GB; {cpu()}, 2 cores"
    assert hardware.hardware(["0", "1"], on, on) == f"2 x NVIDIA H200, 140 GB; {cpu()}, 2 cores"
    assert hardware.hardware(["GPU-1"], on, on).startswith("NVIDIA A10, 140 GB; ")
    assert hardware.hardware([], on, Granted(tuple(range(16)), 16.0, 8)) == f"{cpu()}, 2 cores of 16"
    assert str(Granted((3,), 1.0, 1)) == "1 core" and str(Granted((0, 1), 1.5, 1)) == "1.5 cores"
    assert (beside(0), beside(1), beside(2)) == ("", " beside 1 other slot", " beside 2 other slots")


@LINUX
def test_machines_of_a_class_are_told_apart_without_a_name(driver: None):
    assert machine() == machine() != machine(["0"]) != machine(["1"])
    assert len(machine()) == 8 and os.uname().nodename not in machine()


@LINUX
def test_a_gpu_tells_who_computes_on_it_and_what_slows_it_from_outside(driver: None):
    one, other = nvidia.device("0"), nvidia.device("1")
    assert one is not None and other is not None
    assert one.used_by(1.0) == {4711: 0.4, 4712: 0.1}
    assert not one.power_is_cut, "heat and its own power limit are what a run brings about"
    assert other.power_is_cut


def test_what_a_run_holds_of_a_gpu_is_counted_by_its_processes_or_by_what_came_since(driver: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USED", str(5 << 30))
    gpu = nvidia.device("0")
    assert gpu is not None
    held = nvidia.Held([gpu])
    monkeypatch.setenv("USED", str(12 << 30))
    assert held.by([1, 4711, 4712]) == 4 << 30
    assert held.by([1]) == held.by([4713]) == 7 << 30, "a driver that counts none of these: in a container, say"
    monkeypatch.setenv("USED", str(1 << 30))
    assert held.by([1]) == 0, "others let go of theirs"
    monkeypatch.setenv("USED", str(5 << 30))
    assert nvidia.Held([gpu, gpu]).by([1, 4711, 4712]) == 8 << 30, "several together"


HALVES = Granted(tuple(range(8)), 8.0, 4, ((0, 4), (1, 5), (2, 6), (3, 7)))


def test_a_share_is_whole_physical_cores():
    assert HALVES.physical == [0, 1, 2, 3]
    assert HALVES.share([1, 3]) == Granted((1, 3, 5, 7), 4.0, 2, ((1, 5), (3, 7)))
    assert HALVES.share([0, 1, 2, 3]) == HALVES
    moved = Granted((2, 3), 2.0, 2, ((2,), (3,)))
    assert moved.physical == [2, 3] and moved.share([3]) == Granted((3,), 1.0, 1, ((3,),))


def test_where_a_quota_grants_part_a_share_is_so_many_threads_without_a_place():
    part = Granted(tuple(range(8)), 2.5, 2, HALVES.groups)
    assert part.physical == [0, 1]
    share = part.share([1])
    assert (share.count, share.threads, share.pinned) == (1.0, 1, ())
    assert Granted((), 8, 8).share([0, 1]).environment["OMP_NUM_THREADS"] == "2"


def test_without_a_driver_there_is_no_device_and_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvidia, "LIBRARY", "libnothing-of-this-name.so.1")
    nvidia.device.cache_clear()
    assert nvidia.device("7") is None
    if sys.platform == "linux":
        one = Granted((0,), 1.0, 1)
        assert hardware.hardware(["7"], one, one) == f"an unknown GPU; {cpu()}, 1 core"
    nvidia.device.cache_clear()


@LINUX
@pytest.mark.parametrize(
    ("info", "name"),
    [
        ("processor : 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n\nmodel name\t: another\n", "Intel Xeon @ 2.20GHz"),
        ("model name : AMD EPYC 9B14\n", "AMD EPYC 9B14"),
        ("model name : AMD Ryzen 9 7950X 16-Core Processor\n", "AMD Ryzen 9 7950X"),
        ("CPU implementer : 0x41\nCPU part : 0xd40\n", f"{os.uname().machine} 0x41 0xd40"),
        ("", os.uname().machine),
    ],
)
def test_a_processor_is_called_by_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: str, name: str):
    (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(hardware, "PROC", tmp_path)
    assert cpu() == name


@LINUX
@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000"}, 4.0),
        ("0::/\n", {}, math.inf),
        (
            "4:cpu,cpuacct:/x\n3:memory:/y\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "nonsense"}, math.inf),
    ],
)
def test_a_quota_of_either_kind_of_control_group_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], cores: float
):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(hardware, "PROC", tmp_path)
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "groups")
    assert quota() == cores
    on = granted()
    assert on.count == min(len(on.cores), cores) and 1 <= on.threads <= max(1, on.count)
    assert on.pinned == (on.cores if cores >= len(on.cores) else ()), "a part of the cores is not ours to choose"


@LINUX
def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cores = sorted(os.sched_getaffinity(0))
    for core in cores:
        place = tmp_path / f"cpu{core}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text("0-99\n")
    monkeypatch.setattr(hardware, "CPUS", tmp_path)
    assert granted().threads == 1 and set(granted().environment.values()) == {"1"}


@LINUX
def test_the_server_learns_it_without_the_heavy_libraries():
    code = "import sys, autoresearch_mcp.run.supervisor; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
