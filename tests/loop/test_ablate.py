"""What each kept change is worth, where that is known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch_mcp.errors import NotFoundError, WorkspaceError
from autoresearch_mcp.loop.ablate import leave_out
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.unattended import Moment
from autoresearch_mcp.views import morning
from conftest import Interrupt, open_session, replace, run

Make = Callable[..., Session]
pytestmark = pytest.mark.slow
FILE = """A = 0


B = 0


C = 0


import os, random
noise = random.Random(os.environ["AUTORESEARCH_SEED"] + open("work.py").read()).gauss(0, 0.01)
open("result.txt", "w").write(str(A + B + C + noise))
"""


def quiet(at: Moment) -> None:
    """Tells nobody."""


@pytest.fixture
def night(toy: Make) -> Session:
    """Kept: 3 is worth nothing since 5 makes up for it, 4 stands on the line of 2."""
    session = toy(FILE)
    run(session, "baseline")
    session.keep()
    for old, new in (("A = 0", "A = 1"), ("B = 0", "B = 1"), ("A = 1", "A = 3"), ("C = 0", "C = 5 - B")):
        replace(session, session.read().text.replace(old, new))
        run(session, new)
        session.keep()
    return session


def test_each_change_is_taken_back_from_the_final_file(night: Session):
    before = night.results.text(), night.position(), len(night.state.experiments)
    left = {one.changes[0].number: one for one in leave_out(night, 3, quiet)}
    assert list(left) == [2, 3, 4, 5]
    assert left[2].worth is None and "overlap" in left[2].reason
    useless, two, five = left[3].worth, left[4].worth, left[5].worth
    assert useless is not None and useless.interval()[0] <= 0 <= useless.interval()[1]
    assert two is not None and two.value == pytest.approx(2, abs=0.05) and two.interval()[0] > 0
    assert five is not None and five.value == pytest.approx(4, abs=0.05)  # without it B counts again
    text = morning.ablated(night, list(left.values()))
    assert "can go: not shown to help" in text and "finalize --drop 3" in text and text.count("stays") == 2
    again = open_session(night.workspace.root)
    assert again.tag == night.tag and (again.results.text(), again.position(), len(again.state.experiments)) == before


def test_several_are_left_out_at_once(night: Session):
    (both,) = leave_out(night, 2, quiet, [3, 5])
    assert [change.number for change in both.changes] == [3, 5] and both.worth is not None
    assert both.worth.value == pytest.approx(5, abs=0.1), "each makes up for the other"
    assert "3 and 5" in morning.ablated(night, [both])
    with pytest.raises(NotFoundError, match="Experiment 9 is no change"):
        leave_out(night, 2, quiet, [9])


def test_a_simplification_is_not_put_back(night: Session):
    left = leave_out(night, 2, quiet)
    for one in left:
        for change in one.changes:
            assert change.verdict is not None
            change.verdict = change.verdict.model_copy(update={"simpler": True})
    text = morning.ablated(night, left)
    assert "stays: it is the shorter file" in text and "--drop" not in text


def test_neither_a_branch_nor_a_session_of_the_users_is_taken(night: Session):
    assert night.state.best is not None
    branch = f"refs/heads/{night.state.started.branch}-without-{night.state.best.number}"
    night.workspace.set_ref(branch, night.state.started.base_commit)
    with pytest.raises(WorkspaceError, match="is yours"):
        leave_out(night, 2, quiet)
    assert night.workspace.ref(branch) == night.state.started.base_commit


def test_an_interrupted_queue_goes_on(night: Session):
    interrupt = Interrupt(after=3)
    with pytest.raises(KeyboardInterrupt):
        leave_out(night, 2, interrupt)
    before = night.ledger.state().last_run
    leave_out(night, 2, quiet)
    assert night.ledger.state().last_run == before + 2 * 4 - 3
    leave_out(night, 2, quiet)
    assert night.ledger.state().last_run == before + 2 * 4 - 3, "all is known"


def test_a_change_that_the_file_cannot_do_without_is_said_to_be(toy: Make):
    session = toy("x = 1\n\n\ny = 1\n\n\nopen('result.txt', 'w').write(str(y))\n")
    run(session)
    session.keep()
    replace(session, "x = 1\nz = 5\n\ny = 1\n\n\nopen('result.txt', 'w').write(str(y + 1))\n")
    run(session)
    session.keep()
    replace(
        session,
        "x = 1\nz = 5\n\ny = 1\n\n\nopen('result.txt', 'w').write(str(y + 1))\n\n\nassert z\nopen('result.txt', 'a').write('0')\n",
    )
    run(session)
    session.keep()
    left = leave_out(session, 2, quiet)
    assert [one.changes[0].number for one in left] == [2, 3]
    assert left[0].reason == "without it there is no score (error)" or "overlap" in left[0].reason


def test_nothing_kept_is_nothing_to_leave_out(toy: Make, tmp_path: Path):
    session = toy(FILE)
    run(session)
    session.keep()
    with pytest.raises(NotFoundError, match="no change to leave out"):
        leave_out(session, 2, quiet)
