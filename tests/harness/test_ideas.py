"""The ideas that benchmarks try fit the present train.py, so that a benchmark does not find out after an hour."""

import ast
import sys
from pathlib import Path

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation
from ablation import IDEAS, by_steps, changed, unhurried

from autoresearch_mcp.loop.trial import read_folder

TEXT = (ROOT / "harness" / "train.py").read_text()
EVERY = [(idea, edits) for ideas in IDEAS.values() for idea, edits in ideas.items()]


@pytest.mark.parametrize(("idea", "edits"), EVERY, ids=[idea for idea, _ in EVERY])
def test_an_idea_changes_the_file_and_ends_by_its_steps(idea: str, edits: dict[str, str]):
    text = changed(TEXT, edits)
    assert text != TEXT
    ended = by_steps(text, 300.4, 120.2).decode()
    ast.parse(ended)
    assert "step / 300" in ended and "if step == 300:" in ended and "elapsed() <" not in ended


def test_an_idea_that_does_not_fit_is_said_so():
    with pytest.raises(LookupError, match="no such line"):
        changed(TEXT, {"no such line": "x"})


@pytest.mark.parametrize("preset", ["tiny", "cpu"])
def test_runs_that_end_by_their_steps_meet_no_limit(tmp_path: Path, preset: str):
    run = read_folder(unhurried(tmp_path / "harness", preset), preset)[0].run
    assert {name: getattr(run, name) for name in ablation.UNHURRIED} == ablation.UNHURRIED
