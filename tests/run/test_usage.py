"""What a run uses, and when that is more than it may."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import usage as looking
from autoresearch_mcp.run.processes import descendants
from autoresearch_mcp.run.usage import MAX_DEPTH, MAX_FILES, Memory, Usage, excess, usage
from autoresearch_mcp.sections import Sandbox
from conftest import TOY, ended, open_session, run, spec_of, wait_for

Make = Callable[..., Session]
DONE = "open('result.txt', 'w').write('1')\n"


@pytest.mark.slow
def test_memory_shared_by_forked_workers_counts_once(toy: Make):
    work = """
import os, time
held = bytearray(os.urandom(1)) * (200 * 2**20)
for _ in range(6):
    if os.fork() == 0:
        time.sleep(6)
        os._exit(0)
time.sleep(4)
"""
    session = toy(work + DONE, toml=TOY + "\n[sandbox]\nmemory_mb = 600\n", budget_seconds="20")
    run(session)
    assert ended(session).outcome == "scored", ended(session)
    assert 200 < (ended(session).peak_memory_mb or 0) < 400


SHARED = """
import os, sys, time
held, (go, told) = bytearray(b"1") * (40 << 20), os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.write(1, b"up\\n")
        os.read(go, 1)
        for at in range(0, len(held), 4096):
            held[at] = 2
        os.write(1, b"done\\n")
        time.sleep(60)
sys.stdin.readline()
os.write(told, b"123")
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="proportional sizes are Linux's")
def test_shared_memory_is_not_read_at_every_look_and_seen_when_it_is_shared_no_more(monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    proportional = looking._proportional  # pyright: ignore[reportPrivateUsage]

    def counted(pid: int) -> int:
        read.append(pid)
        return proportional(pid)

    monkeypatch.setattr(looking, "_proportional", counted)
    with subprocess.Popen([sys.executable, "-c", SHARED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin and parent.stdout
        for _ in range(3):
            assert parent.stdout.readline() == b"up\n"
        pids, memory = [parent.pid, *descendants(parent.pid)], Memory()
        held, count = memory.held(pids)
        assert count == 4 and 40 << 20 < held < 100 << 20 and len(read) == 4

        def looks_only_at_what_is_resident() -> bool:
            before = len(read)
            return memory.held(pids)[0] > 0 and len(read) == before

        wait_for(looks_only_at_what_is_resident)
        strict = Memory(allowed_mb=held / 2**20)
        for looks in range(1, 4):
            before = len(read)
            strict.held(pids)
            assert len(read) == before + count, f"it might be too much by now, at look {looks}"
        parent.stdin.write(b"go\n")
        parent.stdin.flush()
        for _ in range(3):
            assert parent.stdout.readline() == b"done\n"
        wait_for(lambda: memory.held(pids)[0] > 160 << 20)
        assert memory.held(pids, peak=1 << 30)[0] > 160 << 20
        for pid in reversed(pids):
            os.kill(pid, 9)


@pytest.mark.parametrize(
    ("used", "failure", "reason"),
    [
        (Usage(memory_mb=10, processes=5, disk_mb=10, files=10), None, ""),
        (Usage(memory_mb=101, processes=5, disk_mb=10, files=10), "oom", "101 MiB of memory; 100 are allowed"),
        (Usage(memory_mb=10, processes=6, disk_mb=10, files=10), "killed", "6 processes; 5 are allowed"),
        (Usage(memory_mb=10, processes=5, disk_mb=11, files=10), "killed", "11 MiB in 10 files"),
        (Usage(memory_mb=10, processes=5, disk_mb=10, files=MAX_FILES + 1), "killed", f"in {MAX_FILES + 1} files"),
        (Usage(memory_mb=10, processes=5, disk_mb=0, files=1, uncounted="a secret"), "killed", "had a secret"),
    ],
)
def test_what_is_too_much_is_named(used: Usage, failure: str | None, reason: str):
    failed = excess(used, Sandbox(memory_mb=100, processes=5, disk_mb=10))
    assert (failed.failure if failed else None) == failure
    assert reason in (failed.reason if failed else "")


HIDING = {
    "a process that goes on without its first thread": """
import ctypes, os, threading, time
def go_on():
    time.sleep(0.2)
    held = bytearray(50 << 20)  # shown to be none
    print("up", flush=True)
    time.sleep(300)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
""",
    "a folder that cannot be looked into (Permission denied)": """
import os, time
os.mkdir("closed")
with open("closed/file", "wb") as file:
    file.write(bytes(1 << 20))
os.chmod("closed", 0)
print("up", flush=True)
time.sleep(300)
""",
    "a process whose open files cannot be seen (its program may not be read)": """
import os
os.set_inheritable(os.open(".", os.O_RDWR | os.O_TMPFILE), True)
with open("program", "wb") as file:
    file.write(open("/bin/sleep", "rb").read())
    os.fchmod(file.fileno(), 0o111)
print("up", flush=True)
os.execv("./program", ["program", "300"])
""",
}
MEASURES = """
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from autoresearch_mcp.run.usage import usage
if os.geteuid() == 0:
    os.setresuid(61190, 61190, 61190)  # root may look into anybody
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as of a process that began with its id
ours, theirs = os.pipe()
if (child := os.fork()) == 0:  # and not a new program: an ordinary user may not reach this interpreter
    os.dup2(theirs, 1)
    exec(sys.argv[1], {})
    os._exit(0)
os.read(ours, 3)
time.sleep(0.2)
print(usage(Path("."), [child]).uncounted)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="who hides like this does so on Linux")
@pytest.mark.parametrize("how", HIDING)
def test_who_hides_what_it_uses_is_uncounted(how: str):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", MEASURES, HIDING[how]]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.stdout == f"{how}\n", result.stderr


def test_a_sparse_file_counts_by_its_blocks_and_a_link_by_itself(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real").write_bytes(os.urandom(3 << 20))
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "link").symlink_to("/usr")
    used = usage(tmp_path, [])
    assert used.files == 4 and 3 <= used.disk_mb < 4 and not used.uncounted


def test_a_file_of_many_names_counts_once(tmp_path: Path):
    (tmp_path / "one").write_bytes(os.urandom(3 << 20))
    for number in range(10):
        os.link(tmp_path / "one", tmp_path / str(number))
    assert 3 <= usage(tmp_path, []).disk_mb < 4


def test_no_depth_escapes(tmp_path: Path):
    """As deep as is allowed a file is counted, by whatever path it would have; what is deeper is too much in itself."""
    at = os.open(tmp_path, os.O_RDONLY)
    for depth in range(MAX_DEPTH + 1):
        if depth == MAX_DEPTH - 1:
            file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at)
            os.write(file, os.urandom(3 << 20))
            os.close(file)
            assert usage(tmp_path, []).disk_mb > 3 and not usage(tmp_path, []).uncounted
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    assert "deep" in usage(tmp_path, []).uncounted
    assert len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")) < 60, "descriptors are closed"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_deleted_file_counts_while_it_is_open(tmp_path: Path):
    code = (
        "import os; f = open('x', 'wb'); f.write(os.urandom(8 << 20)); f.flush(); os.unlink('x'); print('.', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        assert 8 <= usage(tmp_path, [process.pid]).disk_mb < 9
        process.communicate(b"\n")
    assert usage(tmp_path, []).disk_mb < 1


DEEP = """
import os, time
at = os.open('.', os.O_RDONLY)
for _ in range(@DEPTH@):
    os.mkdir('d' * 200, dir_fd=at)
    at, old = os.open('d' * 200, os.O_RDONLY, dir_fd=at), at
    os.close(old)
for number in range(4):
    file = os.open(f'file{number}', os.O_CREAT | os.O_WRONLY, dir_fd=at)
    for _ in range(75):
        os.write(file, bytes(1 << 20))
time.sleep(20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "reason"), [(40, "wrote [123][0-9][0-9] MiB in"), (5000, "nested more than")])
def test_what_lies_below_the_longest_path_is_counted_refused_and_removed(toy: Make, depth: int, reason: str):
    session = toy(DEEP.replace("@DEPTH@", str(depth)) + DONE, toml=TOY + "\n[sandbox]\ndisk_mb = 100\n", budget_seconds="30")
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("crash", "killed")
    assert re.search(reason, ended(session).excerpt), ended(session).excerpt
    assert not spec_of(session, 1).work.exists()


FILES = """
for number in range(4):
    with open(f"tmp/{number}", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "failure", "reason"),
    [
        (FILES, "killed", "scoring wrote"),
        ("held = bytearray(b'x') * (900 << 20)\n", "oom", "scoring used"),
        ("import os\nfor _ in range(60):\n    if os.fork() == 0:\n        break\n", "killed", "scoring had"),
    ],
    ids=["disk", "memory", "processes"],
)
def test_limits_hold_while_a_result_is_scored(
    task_folder: Callable[..., Path], tmp_path: Path, score: str, failure: str, reason: str
):
    limits = "\n[sandbox]\ndisk_mb = 200\nmemory_mb = 600\nprocesses = 50\n"
    folder = task_folder(TOY + limits, work__py=DONE, score__py=f"{score}import time\ntime.sleep(20)\nprint(1)\n")
    session = open_session(create(tmp_path / "workspace", str(folder)).root)
    run(session)
    assert (ended(session).failure, ended(session).score) == (failure, None), ended(session)
    assert reason in ended(session).excerpt
    assert ended(session).seconds["evaluation"] < 15
