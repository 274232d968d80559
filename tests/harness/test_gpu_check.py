"""The check of a GPU machine, as far as it goes without one."""

import subprocess
import sys

import pytest
import torch

from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: run it by hand")
def test_without_a_gpu_it_says_so():
    made = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True)
    assert made.returncode == 1 and "torch sees none here" in made.stderr and "doctor" in made.stderr


@pytest.mark.long
def test_its_steps_work_where_there_is_a_cpu_alone():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--on", "cpu", "--budget", "2"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "| float32 | bias |" in made.stdout and "Estimated for the run" in made.stdout and "**" not in made.stdout
    rows = [line.split(" | ") for line in made.stdout.splitlines() if line.startswith(("| ours", "| published"))]
    assert len(rows) >= 2 and all(float(row[2]) < 8 and int(row[3]) >= 1 for row in rows)
