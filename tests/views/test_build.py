"""Answers of a session, without a client."""

from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views import build
from autoresearch_mcp.views.paging import PAGE, page
from conftest import TOY, UNTIL_TOLD, WORK, let_go, replace, run, wait_for

Make = Callable[..., Session]


def test_lines_are_counted_as_patches_count_them():
    text = "one\x0cstill one\ntwo\rstill two\r\nthree\u2028still three\x85\nfour"
    assert page(text).total == 4
    assert page(text, 2, 3).text == "two\rstill two\r\nthree\u2028still three\x85\n"
    with pytest.raises(NotFoundError, match="has 4 lines"):
        page(text, 5)


def test_a_page_holds_one_line_at_least_and_no_more_than_fits():
    long = page("x" * (PAGE + 1) + "\ny\n")
    assert (long.last, long.cut) == (1, True)
    assert page("").total == 0 and page("").text == ""


def test_an_empty_file_has_its_content_in_the_answer(toy: Make):
    session = toy("")
    view = build.file_view(session)
    assert (view.total_lines, view.structured()["content"]) == (0, "")


@pytest.mark.slow
def test_every_answer_says_what_is_allowed_and_a_scored_one_what_is_suggested(toy: Make):
    session = toy()
    assert build.file_view(session).structured()["allowed"] == ["run_experiment"]
    run(session)
    scored = build.result(session).structured()
    assert (scored["allowed"], scored["suggestion"]) == (["keep"], "keep")
    kept = build.kept(session).structured()
    assert kept["allowed"] == ["apply_patch", "read_work"] and "next" not in kept
    replace(session, "raise SystemExit(1)\n")
    run(session)
    crashed = build.result(session).structured()
    assert "suggestion" not in crashed and crashed["allowed"] == ["apply_patch", "discard"] and "mend" in crashed["next"]


def test_while_the_best_is_repeated_it_stays_kept(toy: Make):
    session = toy(UNTIL_TOLD)
    session.run_experiment("baseline")
    let_go(session)
    wait_for(lambda: not session.state.running)
    session.keep()
    session.run_experiment("again", replicate=True)
    status, history = build.status(session), build.history(session)
    assert (status.kept, status.phase) == (1, "running") and history.best[0].status == "keep" and history.counts == {"keep": 1}
    assert build.result(session).status == "running"  # for whoever waits
    session.results.write()
    assert "\tkeep\t" in session.results.path.read_text()
    session.stop(for_human=True)
    wait_for(lambda: not session.state.running)


def test_numbers_of_experiments_are_read_as_such_only(toy: Make):
    session = toy(toml=TOY)
    run(session)
    for name in ("log:²", "log:" + "9" * 5000, "diff:-1", "log:１"):
        with pytest.raises(NotFoundError):
            build.reference(session, name)
    assert WORK.strip() in session.read().text
