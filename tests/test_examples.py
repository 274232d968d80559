"""Every example task goes through baseline and verdict. Those that have tests of their own, in tests/examples, do so there."""

from pathlib import Path

import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.run.sandbox import detect, refusal
from autoresearch_mcp.task import bundled_tasks
from conftest import ROOT, open_session, run

ELSEWHERE = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "examples").glob("test_*.py")}
EXAMPLES = sorted(name for name in bundled_tasks() if name != "default" and name not in ELSEWHERE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path):
    session = open_session(create(tmp_path / "w", name).root)
    if why := refusal(session.task, detect().level):
        pytest.skip(why)
    session.data.prepare(session.workspace.root)
    run(session, "baseline")
    assert session.keep().experiment.score is not None
