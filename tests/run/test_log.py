"""Logs that cannot fill the disk."""

from pathlib import Path

import pytest

from autoresearch_mcp.run.log import BoundedLog


def test_bounded_log_keeps_beginning_and_end(tmp_path: Path):
    log = BoundedLog(tmp_path / "log", 1000)
    for number in range(1000):
        log.write(f"line {number}\n".encode())
    log.close()
    text = (tmp_path / "log").read_text()
    assert (
        len(text) <= 1000 and text.startswith("line 0\n") and text.endswith("line 999\n") and "bytes of output are not kept" in text
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_output_that_a_full_disk_does_not_take_is_dropped_and_nothing_fails():
    log = BoundedLog(Path("/dev/full"), 1000)
    for _ in range(20):
        log.write(b"x" * 400)
    log.close()
    assert log.dropped >= 8000
