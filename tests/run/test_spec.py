"""What lies in a run's folder is read so that nothing in it can stop a reader."""

import json
from pathlib import Path

import pytest

from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.spec import RunSpec
from conftest import lay_out


def test_a_spec_is_read_as_it_was_written(tmp_path: Path):
    spec = lay_out(tmp_path)
    assert RunSpec.read(spec.folder) == spec


def test_a_spec_is_found_where_its_folder_lies_now(tmp_path: Path):
    spec = lay_out(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = RunSpec.read(tmp_path / "new" / "runs" / "1")
    assert moved is not None and moved.work == tmp_path / "new" / "runs" / "1" / "work" and moved.task == spec.task


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"run": 1}', b"null"])
def test_what_is_no_spec_of_this_version_is_none(tmp_path: Path, content: bytes):
    spec = lay_out(tmp_path)
    spec.path.write_bytes(content)
    assert RunSpec.read(spec.folder) is None


def test_a_spec_of_another_version_with_a_key_that_no_task_has_now_is_none(tmp_path: Path):
    spec = lay_out(tmp_path)
    older = json.loads(spec.path.read_text())
    older["task"]["run"]["gone"] = 1
    spec.path.write_text(json.dumps(older))
    assert RunSpec.read(spec.folder) is None
    assert RunSpec.read(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'{"phase": "dancing"}', b'{"elapsed": "long"}'])
def test_progress_that_cannot_be_read_is_queued(tmp_path: Path, content: bytes):
    path = tmp_path / "progress.json"
    path.write_bytes(content)
    assert Progress.read(path) == Progress()
    assert Progress().phase == "queued" and Progress.read(tmp_path / "missing") == Progress()


def test_progress_is_read_as_it_was_written(tmp_path: Path):
    progress = Progress(phase="training", elapsed=1.5, limit=21.0, budget=20.0, pid=7, slot="cpu")
    progress.write(tmp_path / "progress.json")
    assert Progress.read(tmp_path / "progress.json") == progress
