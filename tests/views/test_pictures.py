"""The card, the learning curves, and the terminal that draws."""

import io
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, ConsoleDimensions
from typer.testing import CliRunner

from autoresearch_mcp import cli
from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import Verified
from autoresearch_mcp.views.card import draw_card
from autoresearch_mcp.views.page import content, gains
from autoresearch_mcp.views.plot import draw_curves
from autoresearch_mcp.views.printed import MOST, Printed
from autoresearch_mcp.views.screen import Screen
from conftest import TOY, UNTIL_TOLD, let_go, open_session, run, wait_for
from written_night import write_night

pytestmark = pytest.mark.slow
Make = Callable[..., Session]
PATTERN = r"step (?P<x>\S+) loss (?P<y>\S+)"


def words_of(session: Session, target: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What stands on the card: as SVG with its text as text."""
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    draw_card(session, target)
    return "\n".join(part.strip() for part in xml.fromstring(target.read_text()).itertext() if part.strip())


# --- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_says_how_far_it_can_be_trusted(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = toy()
    write_night(session, 85)
    told = words_of(session, tmp_path / "card.svg", monkeypatch)
    assert (
        "85 experiments, 3 kept" in told
        and "not verified yet" in told
        and "sandbox: bubblewrap" in told
        and "best from 2 runs" in told
    )
    assert "higher is better" in told and "toy" in told
    picture = xml.fromstring((tmp_path / "card.svg").read_text())
    assert (picture.get("width"), picture.get("height")) == ("1200", "630")
    session.ledger.append(Verified(session=session.tag, baseline=1, best=81, runs=[1, 2], gain=0.02, gain_low=0.01, gain_high=0.03))
    assert "verified by fresh runs" in words_of(session, tmp_path / "card.svg", monkeypatch)
    session.ledger.append(
        Verified(session=session.tag, baseline=1, best=81, runs=[1, 2], gain=-0.02, gain_low=-0.03, gain_high=-0.01)
    )
    assert "not real" in words_of(session, tmp_path / "card.svg", monkeypatch)


def test_the_card_shows_nothing_sealed(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = toy()
    write_night(session, 45)
    holdout = next(one.ended.holdout for one in session.state.kept[-1].runs if one.ended)
    told = words_of(session, tmp_path / "card.svg", monkeypatch)
    assert holdout is not None and f"{holdout:.4f}" not in told and "holdout" not in told


def test_the_card_takes_any_words_for_words(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    session = toy()
    write_night(session, 85, description="$\\frac{1}{0}$ <svg onload=x> \u4e2d\u6587 $")
    told = words_of(session, tmp_path / "card.svg", monkeypatch)
    assert "$\\frac{1}{0}$ <svg onload=x>" in told
    assert "<svg onload" not in (tmp_path / "card.svg").read_text()


def test_pictures_that_cannot_be_drawn_are_said(toy: Make, tmp_path: Path):
    session = toy()
    with pytest.raises(NotFoundError, match="no score"):
        draw_card(session, tmp_path / "card.png")
    write_night(session, 5)
    with pytest.raises(NotFoundError, match=r"\.png"):
        draw_card(session, tmp_path / "card.doc")
    with pytest.raises(NotFoundError, match="run.progress"):
        draw_curves(session, tmp_path / "curves.png")


def test_curves_of_what_was_kept_are_drawn(toy: Make, tmp_path: Path):
    session = toy("print('step 1 loss 3')\nprint('step 2 loss 2')\nopen('result.txt', 'w').write('1.0')\n")
    run(session, "with $ and _ in it")
    session.keep()
    said = CliRunner().invoke(cli.app, ["plot", "--curves", "--workspace", str(session.workspace.root)])
    assert said.exit_code == 0, said.output
    assert (session.workspace.root / "curves.png").read_bytes().startswith(b"\x89PNG")


# --- what a run prints ------------------------------------------------------------------------------------------------


def test_a_curve_is_read_as_it_grows(tmp_path: Path):
    log = tmp_path / "log"
    curve = Printed(PATTERN, log)
    assert curve.look() == []
    log.write_text("step 1 loss 3\nstep 2 lo")
    assert curve.look() == [(1, 3)]
    with log.open("a") as file:
        file.write("ss 2.5\nstep x loss 1\nstep 3 loss nan\nstep 4 loss inf\nstep 5 loss 2\n")
    assert curve.look() == [(1, 3), (2, 2.5), (5, 2)]
    log.write_text("step 1 loss 9\n")  # begun anew
    assert curve.look() == [(1, 9)]


def test_a_curve_stays_bounded(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("".join(f"step {number} loss 1\n" for number in range(3 * MOST)))
    points = Printed(PATTERN, log).look()
    assert len(points) <= MOST and points[0][0] == 0 and points[-1][0] > 3 * MOST - 5
    log.write_bytes(b"\xff" * (8 << 20))
    assert Printed(PATTERN, log).look() == []


# --- the terminal -----------------------------------------------------------------------------------------------------


def drawn(screen: Screen, width: int = 120, height: int = 50) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(screen.look(ConsoleDimensions(width, height)))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_watch_draws_the_night_and_the_run_that_is_on(toy: Make):
    session = toy(
        "print('step 1 loss 3', flush=True)\nprint('step 2 loss 2', flush=True)\nprint('step 3 loss 1', flush=True)\n" + UNTIL_TOLD
    )
    write_night(session, 60)
    screen = Screen(session, 10)
    assert "⠉" in drawn(screen) or "⠒" in drawn(screen) or "⠤" in drawn(screen)
    other = open_session(session.workspace.root, "other")
    number, _ = other.run_experiment("the baseline")
    live = Screen(other, 10)
    wait_for(lambda: "training" in drawn(live) and "┤" in drawn(live))
    assert f"experiment {number}" in drawn(live) and "the baseline" in drawn(live)
    assert "┤" not in drawn(live, 50, 20), "no room, no drawing"
    let_go(other, number)


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (100, 30), (40, 12), (160, 60)])
def test_watch_is_no_higher_than_the_terminal_and_shows_the_latest(toy: Make, size: tuple[int, int]):
    session = toy(UNTIL_TOLD)
    write_night(session, 40, description="a description that is far too long for any terminal " * 4)
    other = open_session(session.workspace.root, "other")
    number, _ = other.run_experiment("a description that is far too long for any terminal " * 4)
    for of, last in ((session, 40), (other, number)):
        told = drawn(Screen(of, 40), *size)
        assert len(told.rstrip("\n").split("\n")) <= size[1]
        assert f" {last} " in told
    let_go(other, number)


def test_watch_draws_nothing_again_that_is_the_same(toy: Make):
    session = toy()
    write_night(session, 10)
    screen, size = Screen(session, 10), ConsoleDimensions(100, 40)
    screen.look(size)
    assert not screen.has_changed(size) and screen.has_changed(ConsoleDimensions(90, 40))
    write_night(session, 1, seed=2)
    assert screen.has_changed(size)


def test_watch_ends_by_itself(toy: Make):
    session = toy()
    write_night(session, 45)
    said = CliRunner().invoke(cli.app, ["watch", "--seconds", "0.6", "--workspace", str(session.workspace.root)])
    assert said.exit_code == 0 and "45 experiments" in said.output


# --- what the page shows ----------------------------------------------------------------------------------------------


def test_the_weakest_sandbox_is_named(toy: Make):
    session = toy()
    write_night(session, 3)
    ended = [one.ended for experiment in session.state.experiments for one in experiment.runs if one.ended]
    assert gains.weakest(ended) == "bubblewrap"
    assert gains.weakest([*ended, ended[0].model_copy(update={"enforcement": "none"})]) == "none"
    never = ended[0].model_copy(update={"enforcement": "none", "seconds": {"queued": 0.0}})
    assert gains.weakest([*ended, never]) == "bubblewrap"


def test_noise_is_put_into_words(toy: Make):
    session = toy(toml=TOY.replace('confidence = "single"', "confidence = 0.95"))
    assert "Nothing has been repeated" in content.noise(session.state)["means"]
    write_night(session, 60)
    assert "through luck alone" in content.noise(session.state)["means"]
