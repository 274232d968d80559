"""A trial says what the sandbox refuses: by call and path, at every level that refuses; and refuses the same as it would elsewhere."""

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.loop.trial import run_trial
from autoresearch_mcp.run import syscalls
from conftest import TOY

NOTHING_RUNS = TOY.replace(TOY[TOY.index("[run]") : TOY.index("[metric]")], "")
REACHES = """
import os, socket
for path in ({secret!r}, "/no/such/file", "score.py", "work.py"):
    try:
        open(path).close()
        print("opened", path)
    except OSError as error:
        print(error)
for path in ("/proc/1/cwd/x", {secret!r} + ".new"):
    try:
        open(path, "w").close()
    except OSError as error:
        print(error)
try:
    os.open(b"/\\xff", 0)
except OSError as error:
    print("no", error.errno)
try:
    socket.socket(socket.AF_INET)
except OSError as error:
    print(error)
try:
    os.execv({program!r}, [{program!r}])
except OSError as error:
    print(error)
print(1)
"""


@pytest.mark.parametrize("level", ["landlock", "bubblewrap"])
def test_paths_and_calls_are_named(task_folder: Callable[..., Path], tmp_path: Path, force: Callable[[str], None], level: str):
    force(level)
    for name in ("secret.csv", "program"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    secret, program = str(tmp_path / "secret.csv"), str(tmp_path / "program")
    folder = task_folder(NOTHING_RUNS, score__py=REACHES.format(secret=secret, program=program))
    (tried,) = run_trial(folder).runs
    assert tried.ended.score == 1 and tried.ended.enforcement == level
    assert {f"openat {secret}", f"execve {program}", "socket (IPv4): runs have no network", f"openat {secret}.new, to write"} <= {
        *tried.refused
    }
    assert not [refusal for refusal in tried.refused if "score.py" in refusal or "/no/such/file" in refusal]
    assert "opened score.py" in tried.scoring and f"opened {secret}" not in tried.scoring


def test_without_a_sandbox_nothing_is_refused(task_folder: Callable[..., Path], force: Callable[[str], None]):
    force("none")
    assert run_trial(task_folder(NOTHING_RUNS, score__py="import socket\nsocket.socket()\nprint(1)\n")).runs[0].refused == []


@pytest.mark.skipif(platform.machine() not in syscalls.MACHINES, reason="there is no filter here")
def test_a_call_is_judged_as_the_filter_would():
    known = syscalls.actions(platform.machine(), unix_sockets=True, own_files=True)
    numbers = syscalls.table(syscalls.CONDITIONAL)[platform.machine()]
    socket = known[numbers["socket"]]
    assert (
        syscalls.judge(socket, [1, 1, 0, 0, 0, 0]) == syscalls.ALLOW
        and syscalls.judge(socket, [2, 1, 0, 0, 0, 0]) == syscalls.REFUSE
    )
    asked = syscalls.asking(known, platform.machine())
    assert asked[numbers["socket"]] == asked[numbers["openat"]] == syscalls.ASK
    assert asked[syscalls.table(syscalls.ALLOWED)[platform.machine()]["read"]] == syscalls.ALLOW
