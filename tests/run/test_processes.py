"""Ending everything that a run started."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch_mcp.run.processes import MARK, end_strays, strays
from conftest import wait_for

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
import os, subprocess, sys
from autoresearch_mcp.run.processes import become_subreaper, descendants, end_descendants
from autoresearch_mcp.run.status import ended
become_subreaper()
child = subprocess.Popen([sys.executable, "-c", {FORKS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
assert len(descendants(os.getpid())) >= 4
print(end_descendants(), [pid for pid in descendants(os.getpid()) if not ended(pid)])
"""
STUCK = """
import subprocess
from autoresearch_mcp.run import processes
processes.END_SECONDS = 0.3
child = subprocess.Popen(["sleep", "300"])
kill, processes.os.kill = processes.os.kill, lambda *_: None
(left,) = processes.end_descendants([child.pid])
processes.os.kill = kill
assert left == f"{child.pid} (sleep)", left
child.kill()
child.wait()
"""
HEADLESS = """
import ctypes, os, subprocess, sys, threading, time
def go_on():
    time.sleep(0.2)  # by now the first thread is gone, and the system calls the process a zombie
    subprocess.Popen(["sleep", "300"], env={})
    print("up", flush=True)
    time.sleep(300)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""
ENDS_THE_HEADLESS = f"""
import os, subprocess, sys
from autoresearch_mcp.run.processes import become_subreaper, descendants, end_descendants
from autoresearch_mcp.run.status import ended
become_subreaper()
child = subprocess.Popen([sys.executable, "-c", {HEADLESS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
left = end_descendants([child.pid])
print(left, child.wait(5), [pid for pid in descendants(os.getpid()) if not ended(pid)])
"""


ENDS_A_CHAIN = """
import os, sys, time
from autoresearch_mcp.run import processes
user, own = int(sys.argv[1]), int(sys.argv[2])
processes.become_subreaper()
if user and not own:
    os.setresuid(user, user, user)  # an ordinary user, and what it runs
if (child := os.fork()) == 0:
    os.environ.clear()
    os.setsid()
    if own:
        os.setresuid(user, user, user)
    if os.fork():
        os._exit(0)
    open("started", "w").close()
    until = time.monotonic() + 20  # where it does win, it wins no longer
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        time.sleep(0.0003)
while not os.path.exists("started"):
    time.sleep(0.01)
time.sleep(0.2)
began = time.monotonic()
left = processes.end_descendants([child], [user] if own else [])
took = time.monotonic() - began
time.sleep(0.1)
others = [pid for pid in processes.processes([user] if user else []) if pid != os.getpid()]
print(left, others, [pid for pid in processes.descendants(os.getpid()) if pid != child], took < 3)
print(took, file=sys.stderr)
os.waitpid(child, 0)
"""
ID = 61100 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Of nobody, of no other test beside this one, and not in the range that runs take theirs from."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter and write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another id")
@pytest.mark.parametrize(("user", "own"), [(0, 0), (ID, 0), (ID, 1)], ids=["root", "an ordinary user", "an id of its own"])
def test_a_chain_of_forks_without_environment_or_session_loses(user: int, own: int, open_folder: Path):
    command = [sys.executable, "-c", ENDS_A_CHAIN, str(user), str(own)]
    result = subprocess.run(command, cwd=open_folder, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[] [] [] True\n", result.stderr


SHOOTS_BACK = """
import ctypes, os, sys
os.setresuid(*[int(sys.argv[1])] * 3)
libc, number, process = ctypes.CDLL(None), {"x86_64": 234, "aarch64": 131}[os.uname().machine], int(sys.argv[2])
print("up", flush=True)
while True:
    for thread in os.listdir(f"/proc/{process}/task"):
        for _ in range(300):
            libc.syscall(number, process, int(thread), 9)
"""
ENDS_WHO_SHOOTS_BACK = f"""
import subprocess, sys, threading
from autoresearch_mcp.run import processes
def end():
    for _ in range(15):
        shooter = subprocess.Popen([sys.executable, "-c", {SHOOTS_BACK!r}, sys.argv[1], str(processes.os.getpid())], stdout=subprocess.PIPE)
        shooter.stdout.readline()
        processes._kill_all_of(int(sys.argv[1]))
        shooter.wait()
thread = threading.Thread(target=end)
thread.start()
thread.join()
print("alive")
"""


@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another id")
def test_a_run_cannot_signal_the_thread_that_takes_its_id_to_end_it():
    result = subprocess.run([sys.executable, "-c", ENDS_WHO_SHOOTS_BACK, str(ID)], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr


STRAYS_OF_A_CHAIN = """
import os, resource, sys, time
from autoresearch_mcp.run import processes
user, mark = int(sys.argv[1]), int(sys.argv[2])
if os.fork() == 0:  # of nobody's any more, as when its supervisor was killed
    os.setsid()
    os.environ.clear()
    resource.setrlimit(resource.RLIMIT_RTTIME, (mark, mark))
    if user:
        os.setresuid(user, user, user)
    if os.fork():
        os._exit(0)
    os.chdir("/")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        time.sleep(0.0003)
    os._exit(0)
time.sleep(0.3)
print(processes.end_strays("/nowhere", mark, [user] if user else []), flush=True)
time.sleep(0.2)
print(len(processes.strays("/nowhere", mark)), processes.processes([user]) if user else [])
"""


@pytest.mark.slow
@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another id")
@pytest.mark.parametrize("user", [0, ID], ids=["the server's id", "an id of its own"])
def test_a_chain_of_forks_whose_supervisor_is_dead_loses(user: int):
    command = [sys.executable, "-c", STRAYS_OF_A_CHAIN, str(user), str((1 << 40) + 777)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n0 []\n", result.stderr


@LINUX
def test_what_carries_the_mark_is_found_without_its_environment_and_outside_its_folder(tmp_path: Path):
    number = (1 << 40) + 12345
    code = f"import os, resource; resource.setrlimit(resource.RLIMIT_RTTIME, ({number}, {number})); "
    code += "os.chdir('/'); os.execve('/bin/sleep', ['sleep', '300'], {})"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: [found.pid for found in strays(str(tmp_path), number)] == [process.pid])
        assert strays(str(tmp_path), number + 1) == []
        assert end_strays(str(tmp_path), number, []) == []
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


@LINUX
def test_daemons_that_ignore_the_signal_are_ended():
    result = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True)
    assert result.stdout == "[] []\n", result.stderr


@LINUX
def test_a_process_whose_first_thread_has_ended_is_none_that_has_ended():
    result = subprocess.run([sys.executable, "-c", ENDS_THE_HEADLESS], capture_output=True, text=True, timeout=60)
    assert result.stdout == "[] -9 []\n", result.stderr


@LINUX
def test_a_stray_whose_first_thread_has_ended_is_found(tmp_path: Path):
    number = (1 << 40) + 54321
    marks = f"import resource; resource.setrlimit(resource.RLIMIT_RTTIME, ({number}, {number}))\n"
    process = subprocess.Popen([sys.executable, "-c", marks + HEADLESS], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert end_strays(str(tmp_path), number, []) == []
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


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
        assert end_strays(str(tmp_path), 0, []) == []
        assert marked.wait(5) is not None and placed.wait(5) is not None and other.poll() is None
    finally:
        for process in (marked, placed, other):
            process.kill()
            process.wait()
