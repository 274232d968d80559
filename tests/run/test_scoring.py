"""A scoring command's output becomes a score or a failure with a name, whatever it is."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch_mcp.errors import EvaluationError, RefusedError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run.scoring import DETAILS, Score, parse_declared, parse_score
from conftest import TOY, ended, run, spec_of

Make = Callable[..., Session]


def scored_by(code: str) -> str:
    """The toy task with this Python code, without double quotes, for its scoring command."""
    return TOY.replace('command = ["{python}", "score.py"]', f'command = ["{{python}}", "-c", "{code}"]')


def test_the_last_line_is_the_score():
    assert parse_score(b"step 1\n3.5\n", 0) == Score(3.5)
    assert parse_score(b"7", 0) == Score(7.0)
    line = {"score": 1, "holdout": 2, "details": {"speed": 3}, "marks": {"causality": "proved"}}
    assert parse_score(json.dumps(line).encode(), 0) == Score(1.0, 2.0, {"speed": 3.0}, {"causality": "proved"})
    assert parse_declared(b'{"marks": {"a": 1, "b\\u001b[31m": "\\u001b[2Jlong"}}') == {"a": "1", "b": "long"}


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "failure", "reason"),
    [
        ('{"score": 1, "details": [1, 2]}', None, "must be an object"),
        ('{"score": 1, "details": "fast"}', None, "must be an object"),
        ('{"score": 1, "details": 7}', None, "must be an object"),
        ('{"score": 1, "details": {"a": [1]}}', None, r"\[1\] as a; it must be a number"),
        ('{"score": 1, "details": {"a": NaN}}', "nan", "a is nan"),
        ("1" * 400, "nan", "not a finite number"),
        ("1" * 5000, None, "no number and no JSON"),
        ("-" + "1" * 400, "nan", "not a finite number"),
        ("1e999", "nan", "not a finite number"),
        ("NaN", "nan", "not a finite number"),
        ("-1e101", "diverged", "the result has diverged"),
        ('{"score": 1, "holdout": 1e300}', "diverged", "the holdout is 1e.300"),
        ("1e-150", None, "give it in another unit"),
        (DEEP, None, "nested too deeply"),
        ('{"score": ' + DEEP + "}", None, "nested too deeply"),
        ('{"score": ' + "[" * 600 + "]" * 600 + "}", None, "must be a number"),
        ('{"refused": ' + "[" * 600 + "]" * 600 + "}", "refused", r"^\[\["),
        (json.dumps({"score": 1, "details": {str(i): i for i in range(DETAILS + 1)}}), None, f"{DETAILS + 1} details"),
        ('{"score": 1, "marks": [1, 2]}', None, "must be an object"),
        (json.dumps({"score": 1, "marks": {str(i): "x" for i in range(DETAILS + 1)}}), None, f"{DETAILS + 1} marks"),
        ('{"score": true}', None, "true as score"),
        ("{}", None, "null as score"),
        ("[]", None, r"\[\] as score"),
        ('{"refused": {"why": 1}, "failure": ["oom"]}', "refused", "why"),
        ('{"refused": "half \\ud800 of a pair", "failure": "oom"}', "oom", r"half \? of a pair"),
        ('{"score": "\\ud800"}', None, "must be a number"),
        ('{"score": 1, "details": {"\\ud800": "x"}}', None, "as \\?; it must"),
        ("\u2028", None, "gave no answer"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_nonsense_is_a_named_failure(line: str, failure: str | None, reason: str):
    with pytest.raises(RefusedError if failure else EvaluationError, match=reason) as caught:
        parse_score(line.encode(), 0)
    assert getattr(caught.value, "failure", None) == failure
    assert len(str(caught.value)) < 3000
    str(caught.value).encode()  # no half of a surrogate pair, which no row can hold


def test_a_name_of_a_detail_is_plain_and_short():
    output = json.dumps({"score": 1, "details": {"\x1b[31mred\ud800" + "x" * 100: 1}}).encode()
    (name,) = parse_score(output, 0).details
    assert name.startswith("red?xxx") and len(name) == 40


def json_values() -> st.SearchStrategy[object]:
    text = st.text(st.characters(codec=None), max_size=20)
    simple = st.none() | st.booleans() | st.integers() | st.floats() | text
    return st.recursive(simple, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=8)


def answers() -> st.SearchStrategy[object]:
    keys = {"score": json_values() | st.floats(), "holdout": json_values(), "details": json_values(), "refused": json_values()}
    return st.fixed_dictionaries({}, optional=keys | {"failure": json_values() | st.just("oom")})


@settings(deadline=None)
@given(st.binary(max_size=200) | (answers() | json_values()).map(lambda value: json.dumps(value).encode()))
def test_any_output_is_a_row_that_can_be_written(output: bytes):
    try:
        score = parse_score(output, 0)
    except (RefusedError, EvaluationError) as error:
        row = RunEnded(run=1, outcome="crash", failure="error", excerpt=str(error))
    else:
        assert math.isfinite(score.score)
        row = RunEnded(run=1, outcome="scored", score=score.score, holdout=score.holdout, details=score.details)
    assert RunEnded.model_validate_json(row.model_dump_json()) == row


def test_a_scoring_command_that_fails_or_hangs_is_no_score(toy: Make, tmp_path: Path):
    session = toy(toml=scored_by("raise SystemExit('broken')"))
    run(session)
    assert ended(session).outcome == "crash" and "exit status 1" in ended(session).excerpt and "broken" in ended(session).excerpt


@pytest.mark.parametrize("line", ["", "7", "[]", "nonsense", DEEP, '{"marks": 1}'], ids=lambda line: line[:12])
def test_nonsense_for_an_answer_to_a_declaration_is_a_failure_too(line: str):
    with pytest.raises(EvaluationError):
        parse_declared(line.encode())


SEALED = """
[data]
prepare = ["{python}", "-c", "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'key.txt').write_text('secret')", "{data}"]
sealed = ["key.txt"]
"""


def test_where_data_is_sealed_nothing_that_scoring_prints_is_shown(toy: Make):
    """A traceback may quote it."""
    code = "import sys; raise SystemExit('IndexError: ' + open(sys.argv[1] + '/key.txt').read())"
    session = toy(toml=scored_by(code).replace(f'"{code}"]', f'"{code}", "{{data}}"]') + SEALED)
    session.data.prepare(session.workspace.root)
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("crash", "scoring")
    assert "secret" not in ended(session).excerpt and "scoring.log" in ended(session).excerpt
    assert "secret" in spec_of(session, 1).scoring_log.read_text()


@pytest.mark.slow
def test_scoring_has_a_time_limit(toy: Make):
    toml = scored_by("import time; time.sleep(300)")
    session = toy(toml=toml, budget_seconds="5\nevaluate_seconds = 1")
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("timeout", "timeout")
    assert "scoring took longer than 1 s" in ended(session).excerpt


def test_a_refusal_carries_its_reason_and_name(toy: Make):
    code = "import json; print(json.dumps({'refused': 'attention is not causal', 'failure': 'not_causal'}))"
    session = toy(toml=scored_by(code))
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("refused", "not_causal")
    assert "attention is not causal" in ended(session).excerpt


def test_scoring_that_answers_nonsense_is_recorded_under_a_name(toy: Make):
    code = "import json; print(json.dumps({'score': 1, 'details': [1]}))"
    session = toy(toml=scored_by(code))
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("crash", "scoring")
    assert "must be an object" in ended(session).excerpt


@pytest.mark.slow
def test_a_scoring_command_that_floods_its_output_is_ended_in_time(toy: Make):
    code = "while True: print('x' * 100)"
    toml = scored_by(code)
    session = toy(toml=toml, budget_seconds="5\nevaluate_seconds = 1")
    run(session)
    assert (ended(session).outcome, ended(session).failure) == ("timeout", "timeout")
