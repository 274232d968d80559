"""What a run uses, and when that is more than it may."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run.usage import MAX_FILES, Usage, excess, usage
from autoresearch_mcp.task import Sandbox
from conftest import TOY, ended, run

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


@pytest.mark.parametrize(
    ("used", "failure", "reason"),
    [
        (Usage(memory_mb=10, processes=5, disk_mb=10, files=10), None, ""),
        (Usage(memory_mb=101, processes=5, disk_mb=10, files=10), "oom", "101 MiB of memory; 100 are allowed"),
        (Usage(memory_mb=10, processes=6, disk_mb=10, files=10), "killed", "6 processes; 5 are allowed"),
        (Usage(memory_mb=10, processes=5, disk_mb=11, files=10), "killed", "11 MiB in 10 files"),
        (Usage(memory_mb=10, processes=5, disk_mb=10, files=MAX_FILES + 1), "killed", f"in {MAX_FILES + 1} files"),
    ],
)
def test_what_is_too_much_is_named(used: Usage, failure: str | None, reason: str):
    failed = excess(used, Sandbox(memory_mb=100, processes=5, disk_mb=10))
    assert (failed.failure if failed else None) == failure
    assert reason in (failed.reason if failed else "")


def test_a_sparse_file_counts_by_its_blocks_and_a_link_by_itself(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real").write_bytes(os.urandom(3 << 20))
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "link").symlink_to("/usr")
    used = usage(tmp_path)
    assert used.files == 4 and 3 <= used.disk_mb < 4
