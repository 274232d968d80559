"""What one session has kept, another takes over as an experiment of its own."""

from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import AutoresearchError, NotAllowedError, NotFoundError, WorkspaceError
from autoresearch_mcp.loop import batch
from autoresearch_mcp.loop.session import Session
from conftest import ended, is_decided, open_session, run, wait_for

WORK = "a = 1.0\nb = 0.0\n\n\n\nd = 0.0\n\n\n\ne = 0.0\nopen('result.txt', 'w').write(str(a + b + d + e))\n"


def change(session: Session, name: str, value: str, before: str = "0.0") -> None:
    session.apply_patch(f"<<<<<<< SEARCH\n{name} = {before}\n=======\n{name} = {value}\n>>>>>>> REPLACE\n")


def adopted(session: Session, number: int) -> int:
    """The number of the experiment, when it is scored."""
    new, note = batch.adopt(session, number)
    assert not note
    wait_for(lambda: is_decided(session, new))
    return new


@pytest.fixture
def there(toy: Callable[..., Session]) -> Session:
    """Has kept b = 2.0 (experiment 2), and not e = -1.0 (3)."""
    session = toy(WORK)
    run(session, "baseline")
    session.keep()
    change(session, "b", "2.0")
    run(session, "b is two", hypothesis="b matters")
    session.keep()
    change(session, "e", "-1.0")
    run(session, "e is less")
    session.discard()
    return session


@pytest.fixture
def here(there: Session) -> Session:
    """Began before that and has kept d = 5.0 (5) on top of its baseline (4)."""
    session = open_session(there.workspace.root, "other")
    run(session, "baseline")
    session.keep()
    change(session, "d", "5.0")
    run(session, "d is five")
    session.keep()
    return session


def test_a_change_that_another_session_kept_is_measured_on_this_ones_best(there: Session, here: Session):
    number = adopted(here, 2)
    assert ended(here, number).score == 8.0
    committed = here.experiment(number).committed
    assert committed.description == f"experiment 2 of session {there.tag}: b is two" and committed.hypothesis == "b matters"
    here.keep()
    assert here.state.best_score == 8.0
    there.refresh()
    assert there.state.best_score == 3.0, "theirs is as it was"
    assert ended(there, adopted(there, 5)).score == 8.0, "and the other way round"


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (3, NotAllowedError, r"has not kept experiment 3 \(discard\).* combine=\[3\]"),
        (5, NotAllowedError, r"Experiment 5 is of this session: .* combine=\[5\]"),
        (99, NotFoundError, "no experiment 99"),
        (1, NotAllowedError, "in the best already"),
    ],
)
def test_what_is_nothing_to_take_over_is_refused(here: Session, number: int, error: type[AutoresearchError], said: str):
    before = here.read().text
    with pytest.raises(error, match=said):
        batch.adopt(here, number)
    assert here.read().text == before and here.position().phase == "ready"


def test_what_overlaps_is_not_taken_over(there: Session, here: Session):
    change(here, "b", "9.0")
    run(here, "b is nine")
    here.keep()
    with pytest.raises(NotAllowedError, match=r"experiment 2 changed overlaps .*diff:2"):
        batch.adopt(here, 2)
    assert here.position().phase == "ready"


def fails(session: Session, monkeypatch: pytest.MonkeyPatch, place: object, name: str, error: AutoresearchError) -> None:
    """Has adopting fail where `place` does what is named."""

    def full(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(type(error), match="disk is full"):
            batch.adopt(session, 2)


def test_where_it_cannot_be_run_the_file_is_as_it_was(here: Session, monkeypatch: pytest.MonkeyPatch):
    before = here.read().text
    fails(here, monkeypatch, here.runs, "first", NotAllowedError("the disk is full"))
    assert here.read().text == before and here.position().phase == "ready"
    assert ended(here, adopted(here, 2)).score == 8.0


def test_what_is_recorded_and_could_not_be_started_can_be_run_again(here: Session, monkeypatch: pytest.MonkeyPatch):
    fails(here, monkeypatch, here.executor, "start", WorkspaceError("the disk is full"))
    number = here.state.experiments[-1].number
    assert "b = 2.0" in here.read().text and here.experiment(number).failure == "lost"
    assert run(here, "again") == number
    assert ended(here, number).score == 8.0
