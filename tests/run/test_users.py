"""The user ids of runs: who has them, and for how long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.run import users
from conftest import lay_out

pytestmark = pytest.mark.skipif(not users.possible(), reason="only root can give another id")
SLEEPS = "import os, sys, time; os.setresuid(*[int(sys.argv[1])] * 3); print(flush=True); time.sleep(300)"


def sleeper(user: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPS, str(user)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_pair_is_held_by_one_and_free_when_it_lets_go():
    pair = users.take()
    assert pair is not None
    assert users.hold([pair.run, pair.scoring]) is None and users.hold([pair.scoring]) is None
    pair.release()
    again = users.hold([pair.scoring])
    assert again is not None and (again.run, again.scoring) == (pair.run, pair.scoring)
    again.release()


def test_what_an_abandoned_run_left_is_ended_but_not_who_has_its_id_by_now(tmp_path: Path):
    spec, pair = lay_out(tmp_path), users.take()
    assert pair is not None
    for folder in (spec.work, spec.scoring):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, pair.run, pair.run)
    process = sleeper(pair.run)
    try:
        LocalExecutor().clean_up(spec)  # its ids are another's: that one holds them
        assert process.poll() is None
        spec.work.mkdir(parents=True, exist_ok=True)
        os.chown(spec.work, pair.run, pair.run)
        pair.release()
        LocalExecutor().clean_up(spec)
        assert process.wait(5) == -9 and not spec.work.exists()
    finally:
        process.kill()
        process.wait()
