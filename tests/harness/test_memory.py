"""The estimate of what a step of train.py takes of memory, and that each preset fits what it is for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from memory import PARTS, ask

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("preset", "rows"), [("tiny", 64), ("cpu", 16)])
def test_the_estimate_is_what_steps_really_take(preset: str, rows: int):
    estimated, taken = ask("step", preset, rows), ask("take", preset, rows)["taken"]
    of_run = estimated["states"] + estimated["activations"] + estimated["logits"]
    assert taken == pytest.approx(of_run, rel=0.2)


@pytest.mark.parametrize("preset", ("gpu-8", "gpu-24"))  # of those alike in other things, the fullest
def test_the_baseline_of_a_preset_fits_the_gpu_that_it_is_for(preset: str):
    estimated = ask("step", preset)
    assert sum(estimated[part] for part in PARTS) < 0.7 * estimated["for"]
