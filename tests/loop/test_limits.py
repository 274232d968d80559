"""Limits of a session: what is done stays done, what is owed is still given, and the human hears of it once."""

import json
import time
from collections.abc import Callable

import pytest

from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop import hooks, limits
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.task import parse_task
from autoresearch_mcp.views import build
from conftest import PATIENCE, TOY, replace, run

SAVES = '["{python}", "-c", "import sys, pathlib; pathlib.Path(\'told\').open(\'a\').write(sys.stdin.read() + chr(10))"]'


def told(session: Session, count: int) -> list[dict[str, object]]:
    """What hooks were told, when they were told so often."""
    path, deadline = session.workspace.root / "told", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError("nobody was told")


@pytest.mark.slow
def test_after_the_last_experiment_a_session_is_done(toy: Callable[..., Session]):
    session = toy(toml=TOY + f"\n[limits]\nexperiments = 2\n[notify]\non_end = {SAVES}\non_keep = {SAVES}\n")
    run(session)
    session.keep()
    replace(session, "open('result.txt', 'w').write('2.0')\n")
    run(session, "an idea; $(rm -rf /)")
    assert session.position().phase == "scored", "a verdict that is owed is given"
    session.keep()
    now = session.position()
    assert now.phase == "done" and now.allowed == ("status", "history")
    assert "2 experiments, as many as limits.experiments allows" in now.next and "score 1.000000 -> 2.000000" in now.next
    for step in (
        lambda: session.run_experiment("more"),
        lambda: session.apply_patch("<<<<<<< SEARCH\nx\n=======\n>>>>>>> REPLACE"),
    ):
        with pytest.raises(NotAllowedError, match="the session is done"):
            step()
    for _ in range(3):
        session.advance()
    ended, kept = sorted(told(session, 2), key=lambda hook: str(hook["event"]))
    assert (kept["event"], kept["description"], kept["best"]) == ("keep", "an idea; $(rm -rf /)", 2.0)
    assert ended["event"] == "end" and "limits.experiments" in str(ended["reason"])
    time.sleep(0.3)
    assert len(told(session, 2)) == 2, "the end is told once"
    assert "2 experiments" in build.status(session).text()


def test_an_edit_that_is_left_over_can_be_taken_back(toy: Callable[..., Session]):
    session = toy(toml=TOY + "\n[limits]\nexperiments = 1\n")
    run(session)
    session.keep()
    session.worktree.write(b"print('left')\n")
    assert session.position().allowed == ("discard",)
    session.discard()
    assert session.position().phase == "done"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "score", "says"),
    [
        ("stop_at = 2", "2.5", "score 2.500000 has reached limits.stop_at, 2"),
        ("stop_at = 3", "2.5", ""),
        ("cost_per_run = 0.5\ncost = 1.2", "2.5", "2 runs cost 1, and another one would be more than limits.cost, 1.2"),
        ("cost_per_run = 0.5\ncost = 1.5", "2.5", ""),
        ("hours = 100", "2.5", ""),
    ],
)
def test_each_limit(toy: Callable[..., Session], table: str, score: str, says: str):
    session = toy(toml=TOY + f"\n[limits]\n{table}\n")
    run(session)
    session.keep()
    replace(session, f"open('result.txt', 'w').write('{score}')\n")
    run(session)
    session.keep()
    assert limits.reached(session.state, session.task, time.time()) == says
    if "hours" in table:
        assert "100 hours" in limits.reached(session.state, session.task, time.time() + 101 * 3600)


def test_a_hook_that_fails_or_hangs_is_noted_and_changes_nothing(toy: Callable[..., Session]):
    session = toy(
        toml=TOY
        + '\n[notify]\non_keep = ["/no/such/program"]\non_plateau = ["{python}", "-c", "import time; time.sleep(60)"]\ntimeout_seconds = 0.5\n'
    )
    for event in ("keep", "plateau", "stall"):
        session.hooks.fire(event, {}, wait=True)  # type: ignore[arg-type]
    noted = (session.workspace.state_dir / hooks.LOG).read_text()
    assert "cannot be started" in noted and "took longer than 0.5 s" in noted and "stall" not in noted


@pytest.mark.slow
def test_a_plateau_is_told(toy: Callable[..., Session], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hooks, "PLATEAU", 2)
    session = toy(toml=TOY + f"\n[notify]\non_plateau = {SAVES}\n")
    run(session)
    session.keep()
    for score in ("0.5", "0.4", "0.3"):
        replace(session, f"open('result.txt', 'w').write('{score}')\n")
        run(session)
        session.discard()
    (plateau,) = told(session, 1)
    assert (plateau["event"], plateau["since_best"]) == ("plateau", 2)


def test_a_limit_holds_for_repeats_that_an_agent_asks_for(toy: Callable[..., Session]):
    session = toy(toml=TOY + "\n[limits]\nexperiments = 1\n")
    run(session)
    with pytest.raises(NotAllowedError, match=r"No further run is made: the session is done"):
        session.run_experiment("again", replicate=True)


@pytest.mark.slow
def test_a_baseline_is_not_repeated_without_end(toy: Callable[..., Session]):
    session = toy()
    run(session)
    for _ in range(7):
        run(session, replicate=True)
    with pytest.raises(NotAllowedError, match="has had 8 runs"):
        session.run_experiment("again", replicate=True)


def test_money_adds_up():
    task = parse_task(TOY + "\n[limits]\ncost_per_run = 0.1\ncost = 0.3\n")
    assert task.limits.cost is not None and 0.1 * 2 + 0.1 > 0.3, "else this would prove nothing"
