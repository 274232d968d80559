"""Which preset a machine gets."""

import re

import pytest

from autoresearch_mcp.create import presets_of
from autoresearch_mcp.run import fitting, gpus, nvidia

PRESETS = presets_of("default")


@pytest.mark.parametrize(
    ("gpu", "preset"),
    [
        (None, "cpu"),
        (0.0, "cpu"),  # a GPU that does not tell
        (5.99, "cpu"),
        (7.65, "gpu-8"),  # an RTX 3070
        (11.6, "gpu-12"),
        (15.8, "gpu-12"),  # a V100 of 16 GB
        (22.5, "gpu-24"),  # an A10
        (23.99, "gpu-24"),
        (39.6, "gpu-40"),
        (47.5, "gpu-40"),
        (79.6, "gpu"),  # an H100
        (94.0, "gpu"),
        (139.8, "gpu-141"),  # an H200
        (180.0, "gpu-141"),
    ],
)
def test_the_largest_that_the_memory_is_enough_for(gpu: float | None, preset: str):
    assert fitting.choose(PRESETS, gpu) == preset


@pytest.mark.parametrize(("cores", "preset"), [(1, "cpu"), (7, "cpu"), (8, "cpu-8"), (96, "cpu-8")])
def test_many_cores_have_a_preset_of_their_own(cores: int, preset: str):
    assert fitting.choose(PRESETS, None, cores=cores) == preset
    assert fitting.choose(PRESETS, 79.6, cores=cores) == "gpu"
    assert fitting.choose(["cpu", "gpu"], None, cores=cores) == "cpu"


def test_apples_gpu_has_one_of_its_own_and_tasks_without_have_none():
    assert fitting.choose(PRESETS, None, apple=True) == "mps"
    assert fitting.choose(["cpu", "gpu"], None, apple=True) == "cpu"
    assert fitting.choose(["small", "large"], 24.0) is None
    assert fitting.choose([], None) is None


def test_gpu_alone_is_for_any_gpu():
    assert fitting.choose(["tiny", "cpu", "gpu"], 6.0) == "gpu"
    assert fitting.choose(["gpu"], 0.0) == "gpu"
    assert fitting.choose(["gpu"], None) is None


def test_the_smallest_of_several_gpus_counts(monkeypatch: pytest.MonkeyPatch):
    class Device:
        def __init__(self, index: str):
            self.memory = {"0": 80, "1": 24}[index] << 30

    monkeypatch.setattr(fitting.sys, "platform", "linux")
    monkeypatch.setattr(gpus, "indices", lambda: ["0", "1"])
    monkeypatch.setattr(nvidia, "device", Device)
    assert fitting.fitting(PRESETS) == "gpu-24"
    monkeypatch.setattr(nvidia, "device", lambda index: None)
    assert fitting.fitting(PRESETS) == "cpu"


def test_every_size_that_is_promised_is_there():
    sizes = {size for name in PRESETS if (size := fitting.size_of(name, PRESETS))}
    assert sizes == {8, 12, 24, 40, 80, 141} and {"mps", "cpu", "tiny"} < set(PRESETS)
    assert all(re.fullmatch(r"tiny|cpu(-8)?|mps|gpu(-\d+)?", name) for name in PRESETS)
