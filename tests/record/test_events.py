"""Rows of every format are read, and what is not known says who wrote it."""

import json

import pytest
from pydantic import ValidationError

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import LedgerError
from autoresearch_mcp.record.events import FORMAT, RunEnded, Settled, VerdictGiven, read_event, read_events, write_event


def test_a_row_says_its_format_and_who_wrote_it_and_reads_as_it_was():
    event = VerdictGiven(experiment=3, verdict="keep", reason='it "is" better', learned=None)
    row = write_event(event)
    assert json.loads(row)["format"] == FORMAT and json.loads(row)["by"] == __version__
    assert read_event(row) == event and read_events([row, row]) == [event, event]


def test_rows_of_the_first_format_read_as_todays():
    old = '{"kind":"ended","run":1,"outcome":"crash","failure":null,"score":null}'
    assert read_event(old) == RunEnded(run=1, outcome="crash", failure="error")
    assert read_events([old, write_event(Settled(experiment=1))])[1] == Settled(experiment=1)


@pytest.mark.parametrize(
    "row",
    [
        '{"format":2,"by":"7.1.0","kind":"wave","experiment":1}',
        '{"format":9,"by":"7.1.0","kind":"settled","experiment":1}',
        '{"format":2,"by":"7.1.0","kind":"settled","experiment":"many"}',
    ],
)
def test_what_another_version_wrote_and_this_one_does_not_know_names_that_version(row: str):
    for read in (lambda: read_event(row), lambda: read_events([row])):
        with pytest.raises(LedgerError, match=r"written by autoresearch-mcp 7\.1\.0.*Install that version"):
            read()


@pytest.mark.parametrize(
    "row",
    ["", "null", "[1]", "{", "12", '{"kind":"nonsense"}', '{"format":"3","kind":"settled"}', '{"format":0}', '{"format":null}'],
)
def test_what_is_no_event_is_a_ledger_error(row: str):
    with pytest.raises(LedgerError, match="backup|Install"):
        read_event(row)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "scored"},
        {"outcome": "scored", "score": 1.0, "failure": "oom"},
        {"outcome": "scored", "score": float("nan")},
        {"outcome": "scored", "score": float("inf")},
        {"outcome": "crash"},
        {"outcome": "crash", "failure": "oom", "score": 1.0},
        {"outcome": "unheard of", "failure": "oom"},
    ],
)
def test_a_result_that_does_not_add_up_is_refused_where_it_is_made(fields: dict[str, object]):
    with pytest.raises(ValidationError):
        RunEnded.model_validate({"run": 1, **fields})
