"""A branch for a pull request, out of a night."""

import subprocess
from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError, NotFoundError
from autoresearch_mcp.loop.finalize import make_branch
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views.report import write_report
from conftest import replace, run

Make = Callable[..., Session]
FILE = "A = 0\n\n\nB = 0\n\n\nC = 0\n\n\nopen('result.txt', 'w').write(str(A + B + C))\n"


@pytest.fixture
def night(toy: Make) -> Session:
    """A baseline, three kept changes (2, 3 and 5) and a discarded one."""
    session = toy(FILE)
    run(session, "baseline")
    session.keep()
    for old, new, kept in (
        ("A = 0", "A = 1", True),
        ("B = 0", "B = 2", True),
        ("C = 0", "C = -9", False),
        ("C = 0", "C = 4", True),
    ):
        replace(session, session.read().text.replace(old, new))
        session.run_experiment(new, hypothesis=f"{new} should help")
        run_to_end(session)
        session.keep(f"{new} helps") if kept else session.discard()
    return session


def run_to_end(session: Session) -> None:
    from conftest import is_decided, wait_for

    wait_for(lambda: is_decided(session, session.state.experiments[-1].number))


def git(session: Session, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=session.workspace.root, capture_output=True, text=True, check=True).stdout


def test_a_commit_for_each_kept_change_and_nothing_else(night: Session):
    before = git(night, "status", "--porcelain"), git(night, "rev-parse", "HEAD", night.state.started.branch)
    final = make_branch(night)
    assert [change.number for change in final.changes] == [2, 3, 5] and not final.unverified
    assert git(night, "log", "--format=%s", final.branch).splitlines()[:4] == [
        "C = 4",
        "B = 2",
        "A = 1",
        "Workspace of the task toy",
    ]
    body = git(night, "log", "-1", "--format=%b", f"{final.branch}~1")
    assert "B = 2 should help" in body and "score: 3.000000" in body and "2.000000 better than before it" in body
    assert "Experiment 3 of session" in body and "Learned: B = 2 helps" in body
    assert git(night, "diff", "--name-only", night.state.started.base_commit, final.branch) == "work.py\n"
    assert git(night, "diff", final.branch, night.state.started.branch) == ""
    assert (git(night, "status", "--porcelain"), git(night, "rev-parse", "HEAD", night.state.started.branch)) == before


def test_a_change_can_be_left_out_where_the_rest_applies_without_it(night: Session):
    final = make_branch(night, "without-b", drop=[3])
    text = git(night, "show", "without-b:work.py")
    assert final.unverified and "A = 1" in text and "B = 0" in text and "C = 4" in text
    replace(night, night.read().text.replace("C = 4", "C = 5"))
    night.run_experiment("on top of another")
    run_to_end(night)
    night.keep()
    with pytest.raises(NotAllowedError, match="Experiment 6 does not apply without what was dropped"):
        make_branch(night, "without-c", drop=[5])
    assert night.workspace.ref("refs/heads/without-c") is None
    with pytest.raises(NotFoundError, match="Experiment 4 is no change that was kept. Those are: 2, 3, 5, 6"):
        make_branch(night, drop=[4])


def test_a_branch_that_is_there_is_replaced_only_on_request(night: Session):
    first = make_branch(night)
    with pytest.raises(NotAllowedError, match="--force"):
        make_branch(night, drop=[3])
    assert night.workspace.ref(f"refs/heads/{first.branch}") == first.commit
    assert make_branch(night, drop=[3], force=True).commit != first.commit
    with pytest.raises(NotAllowedError, match="is checked out in"):
        make_branch(night, night.state.started.branch, force=True)


def test_nothing_kept_is_nothing_for_a_branch(toy: Make):
    session = toy(FILE)
    run(session)
    session.keep()
    with pytest.raises(NotFoundError, match="Nothing was kept but the baseline"):
        make_branch(session)


def test_a_colleague_reads_it_in_two_minutes(night: Session):
    path = write_report(night, make_branch(night))
    text = path.read_text()
    assert "**Result**: 0.000000 before, 7.000000 after" in text and "5 experiments in 5 runs" in text
    assert "| 3 | B = 2 | 3.000000 | 2.000000 | 1 |" in text and "- C = 4 helps (experiment 5)" in text
    assert (path.parent / "progress.png").stat().st_size > 10_000 and len(text.splitlines()) < 60
    assert git(night, "status", "--porcelain") == ""
