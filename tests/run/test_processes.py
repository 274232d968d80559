"""Ending everything that a run started."""

import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch_mcp.run.processes import MARK, end_all, strays

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="orphans fall to a subreaper on Linux alone")

FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        while True:
            time.sleep(1)
print("up", flush=True)
time.sleep(300)
"""
ENDS = f"""
import subprocess, sys
from autoresearch_mcp.run.processes import become_subreaper, descendants, end_descendants
become_subreaper()
child = subprocess.Popen([sys.executable, "-c", {FORKS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
assert len(descendants()) >= 4
print(end_descendants(0.2), [p for p in descendants() if p.status() != "zombie"])
"""
STUCK = """
import subprocess
from autoresearch_mcp.run import processes
processes.END_SECONDS = 0.3
child = subprocess.Popen(["sleep", "300"])
kill, processes.psutil.Process.kill = processes.psutil.Process.kill, lambda self: None
processes.psutil.Process.terminate = lambda self: None
(left,) = processes.end_descendants(0.1)
assert left == f"{child.pid} (sleep)", left
child.kill()
child.wait()
"""


@LINUX
def test_daemons_that_ignore_the_signal_are_ended():
    result = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True)
    assert result.stdout == "[] []\n", result.stderr


def test_what_cannot_be_ended_is_named():
    """As of a process that waits for a dead disk: here, killing does nothing."""
    result = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_strays_are_found_by_their_mark_and_by_where_they_work(tmp_path: Path):
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    marked = subprocess.Popen(sleep, env={MARK: str(tmp_path)})
    placed = subprocess.Popen(sleep, cwd=tmp_path)
    other = subprocess.Popen(sleep, env={MARK: "another run"})
    try:
        assert {process.pid for process in strays(str(tmp_path))} == {marked.pid, placed.pid}
        end_all(strays(str(tmp_path)))
        assert marked.wait(5) is not None and placed.wait(5) is not None and other.poll() is None
    finally:
        for process in (marked, placed, other):
            process.kill()
            process.wait()
