"""A branch for a pull request, out of a night."""

import re
import subprocess
from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import LedgerError, NotAllowedError, NotFoundError
from autoresearch_mcp.loop.finalize import make_branch
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import Verified
from autoresearch_mcp.views.report import place_of, report, write_report
from conftest import replace, run

pytestmark = pytest.mark.slow  # each has a session of several runs

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
    assert make_branch(night).changes == first.changes, "what is ours is made again"
    ref, theirs = (
        f"refs/heads/{first.branch}",
        night.workspace.commit_file(first.commit, "work.py", b"mine", "a commit of the user's"),
    )
    night.workspace.set_ref(ref, theirs)
    with pytest.raises(NotAllowedError, match="--force"):
        make_branch(night, drop=[3])
    assert night.workspace.ref(ref) == theirs
    assert make_branch(night, drop=[3], force=True).commit != first.commit
    with pytest.raises(NotAllowedError, match="is that of a session"):
        make_branch(night, night.state.started.branch, force=True)
    git(night, "checkout", "-q", first.branch)
    with pytest.raises(NotAllowedError, match="is checked out in"):
        make_branch(night, force=True)
    assert make_branch(night, drop=[3], force=True).commit == night.workspace.ref(f"refs/heads/{first.branch}"), "it holds the same"
    for name in ("two words", "-x", "a..b", "main.lock"):
        with pytest.raises(NotAllowedError, match="is no name for a branch"):
            make_branch(night, name)


def test_what_was_taken_back_later_is_in_no_pull_request(night: Session):
    for old, new in (("A = 1", "A = 9"), ("A = 9", "A = 1  # as it was\nD = 5"), ("str(A", "str(D + A")):
        replace(night, night.read().text.replace(old, new))
        night.run_experiment(new)
        run_to_end(night)
        if "keep" in night.position().allowed:
            night.keep()
        else:
            night.discard()
    final = make_branch(night)
    assert not final.unverified and {change.number for change in final.gone} <= {6}
    assert git(night, "show", f"{final.branch}:work.py") == night.text_at(night.state.head_commit)


def test_a_record_that_does_not_hold_is_finalized_to_nothing(night: Session):
    git(night, "update-ref", "refs/autoresearch/experiments/3", night.state.started.base_commit)
    with pytest.raises(LedgerError, match="somebody moved it"):
        make_branch(night)
    assert night.workspace.ref(f"refs/heads/{night.state.started.branch}-final") is None


def test_nothing_kept_is_nothing_for_a_branch(toy: Make):
    session = toy(FILE)
    run(session)
    session.keep()
    with pytest.raises(NotFoundError, match="Nothing was kept but the baseline"):
        make_branch(session)


def test_a_colleague_reads_it_in_two_minutes(night: Session):
    path = write_report(night, make_branch(night), place_of(night))
    text = path.read_text()
    assert "**Result**: 0.000000 before, 7.000000 after" in text and "5 experiments in 5 runs" in text
    assert "| 3 | B = 2 | 3.000000 | 2.000000 | 1 |" in text and "- C = 4 helps (experiment 5)" in text
    assert (path.parent / "progress.png").stat().st_size > 10_000 and len(text.splitlines()) < 60
    assert git(night, "status", "--porcelain") == ""


def test_a_report_overwrites_nothing_of_the_users(night: Session):
    (night.workspace.root / "report").mkdir()
    (night.workspace.root / "report" / "report.md").write_text("mine")
    git(night, "add", "-f", "report/report.md")
    path = write_report(night, make_branch(night), place_of(night))
    assert path.parent.parent == night.workspace.state_dir and path.exists()
    assert (night.workspace.root / "report" / "report.md").read_text() == "mine"


def test_words_of_an_agent_mean_nothing_in_the_report(night: Session):
    replace(night, night.read().text.replace("C = 4", "C = 5"))
    night.run_experiment("<img src=http://evil> | [x](http://evil) \\| `a` # b")
    run_to_end(night)
    night.keep("- **Verified**: by me, +99")
    text = report(night, make_branch(night))
    assert "<img" not in text.replace("\\<img", "") and "](http" not in text
    assert "- \\- \\*\\*Verified\\*\\*: by me" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 6 |")]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 6, "as many cells as there are columns"


def test_an_old_verification_is_not_told_of_a_new_best(night: Session):
    assert night.state.best is not None
    figures = {"gain": 7.0, "gain_low": 7.0, "gain_high": 7.0}
    night.ledger.append(Verified(session=night.tag, baseline=1, best=night.state.best.number, runs=[6, 7], **figures))
    assert "**Verified**: 1 fresh runs each gained 7.000000." in report(night, make_branch(night))
    assert "**Verified**: no; the last" in report(night, make_branch(night, "less", drop=[3]))
    replace(night, night.read().text.replace("C = 4", "C = 5"))
    night.run_experiment("better")
    run_to_end(night)
    night.keep()
    assert "**Verified**: no; the last verification was of experiment 5." in report(night, make_branch(night, force=True))
    night.ledger.append(Verified(session=night.tag, baseline=1, best=6, runs=[8, 9], failed=[9]))
    told = report(night, make_branch(night, force=True))
    assert "**Verified**: no. 1 of 1 verifications said nothing" in told
