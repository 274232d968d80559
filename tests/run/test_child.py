"""One child process of the supervisor and its output."""

import gc
import math
import os
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from autoresearch_mcp.run.child import LAST_LINE_BYTES, Child
from autoresearch_mcp.run.log import BoundedLog


def start(folder: Path, code: str) -> Child:
    return Child([sys.executable, "-c", code], folder, {}, BoundedLog(folder / "log", 1 << 20), stdin=subprocess.PIPE)


def test_output_is_pumped_into_the_log_until_the_last_writer_is_gone(tmp_path: Path):
    child = start(
        tmp_path,
        "import os\nif os.fork() == 0:\n    import time; time.sleep(0.3)\n    print('child')\nelse:\n    print('parent')\n",
    )
    anyio.run(child.pump)
    child.end()
    assert (tmp_path / "log").read_text().split() == ["parent", "child"]


def test_the_tail_is_bounded(tmp_path: Path):
    child = start(tmp_path, f"print('x' * {3 * LAST_LINE_BYTES}); print('end')")
    anyio.run(child.pump)
    child.end()
    assert len(child.tail) == LAST_LINE_BYTES and child.tail.endswith(b"x\nend\n")


def test_lines_are_read_one_by_one_and_none_is_lost(tmp_path: Path):
    child = start(
        tmp_path, "print('one'); print('two', flush=True); import time; time.sleep(0.1); print('three'); print('end', end='')"
    )
    assert [anyio.run(child.line) for _ in range(4)] == [b"one\n", b"two\n", b"three\n", b""]
    child.end()
    assert child.tail == b"one\ntwo\nthree\nend"


def test_draining_ends_though_something_still_writes(tmp_path: Path):
    child = start(tmp_path, "while True: print('x' * 1000)")
    anyio.run(child.line)
    child.drain()
    assert child.returncode is None
    child.end()
    child.end()
    assert child.returncode is not None


@pytest.mark.parametrize("told", ["by the kernel", "by none", "by a Python that lacks the call"])
def test_one_waits_until_it_has_ended_and_no_longer_than_one_will(tmp_path: Path, told: str, monkeypatch: pytest.MonkeyPatch):
    def nobody(_: int) -> int:
        raise OSError("no such call")

    if told == "by none":
        monkeypatch.setattr(os, "pidfd_open", nobody, raising=False)
    elif told != "by the kernel":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = start(tmp_path, "input()")
    gc.collect()  # what earlier tests have left open
    opened = psutil.Process().num_fds()
    anyio.run(child.wait)
    assert child.returncode is None
    child.process.kill()
    anyio.run(child.wait, math.inf)
    assert child.returncode is not None
    anyio.run(child.wait, math.inf)  # also one that was collected
    assert psutil.Process().num_fds() == opened
    child.end()


def test_a_command_that_does_not_exist_leaves_nothing_open(tmp_path: Path):
    log = BoundedLog(tmp_path / "log", 1000)
    with pytest.raises(FileNotFoundError):
        Child([str(tmp_path / "missing")], tmp_path, {}, log)
