"""The page in a real browser: what is seen, live, on a phone, in the dark, by keyboard, with hostile words, at 10,000 experiments."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from autoresearch_mcp.loop.session import Session
from clients.programs import installed
from conftest import PATIENCE, UNTIL_TOLD, let_go, open_session, run
from needs import require
from test_dashboard import dashboard
from written_night import write_night

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]
expect.set_options(timeout=PATIENCE * 1000)
Make = Callable[..., Session]
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
VIEWS = ("night", "experiments", "morning", "places", "machines")
HOSTILE = (
    '"><img src=x onerror="window.owned = 1"><script>window.owned = 1</script><svg onload="window.owned = 1"> javascript:window.owned=1 '
    "\u202eevil {{7*7}} ${window.owned=1} '};window.owned=1;//"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The checks of axe-core, as a script."""
    require("npm")
    return (installed().parent / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page of a workspace; what its console complains of fails the test."""
    complaints: list[str] = []
    with ExitStack() as open_now:

        def opened(session: Session, size: str = "desk", theme: str = "light", *options: str) -> Page:
            link = open_now.enter_context(dashboard(session.workspace.root, *options))
            width, height = SIZES[size]
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size == "phone"
            )
            open_now.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(link)
            return page

        yield opened
    assert not complaints, complaints


def rows_of(page: Page) -> list[str]:
    return page.locator("table.experiments tbody tr td.number:first-child").all_inner_texts()


def test_the_night_is_seen(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 90)
    page = visit(session)
    expect(page).to_have_title(re.compile(r"± .* toy"))
    expect(page.locator(".stats")).to_contain_text("90")
    expect(page.locator(".means")).to_contain_text("through luck alone")
    canvas = page.locator(".chart canvas")
    expect(canvas).to_be_visible()
    green = page.evaluate(
        "() => { const c = document.querySelector('.chart canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i] < 60 && d[i + 1] > 110 && d[i + 2] < 110) n += 1; return n; }"
    )
    assert green > 500, "the best's line and the kept ones are drawn"


def test_a_real_run_is_followed(toy: Make, visit: Callable[..., Page]):
    session = toy(f"for i in range(1, 6):\n    print(f'step {{i}} loss {{6 - i}}', flush=True)\n{UNTIL_TOLD}")
    number, _ = session.run_experiment("the baseline")
    page = visit(session)
    now = page.locator(".now")
    expect(now).to_contain_text("training")
    expect(now).to_contain_text("the baseline")
    expect(now.locator(".curves canvas")).to_be_visible()
    now.locator("summary").click()
    expect(now.locator(".log")).to_contain_text("step 5 loss 1")
    expect(page.locator(".latest")).to_contain_text("running")
    let_go(session, number)
    expect(now).to_contain_text("Nothing runs")  # nothing was clicked, nothing was loaded again
    expect(page.locator(".latest")).to_contain_text("1.000000")
    session.refresh()
    session.keep("where we start")
    expect(page.locator(".latest .badge")).to_have_text("kept")


AXIS = "() => document.querySelector('.chart').__progress.plot.scales.x"


def test_the_chart_follows_what_comes_and_leaves_a_zoom_alone(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 30)
    page = visit(session)
    for more in range(1, 4):
        write_night(session, 10, seed=more)
        expect(page.locator(".stats")).to_contain_text(str(30 + 10 * more))
        assert page.evaluate(AXIS)["max"] > 30 + 10 * more
    page.evaluate("document.querySelector('.chart').__progress.plot.setScale('x', {min: 5, max: 15})")
    write_night(session, 10, seed=9)
    expect(page.locator(".stats")).to_contain_text("70")
    assert page.evaluate(AXIS)["max"] == 15


def test_the_way_back_opens_nothing_again(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 30)
    page = visit(session)
    page.get_by_role("link", name="Experiments").click()
    page.locator("tbody tr").first.click()
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    page.go_back()
    page.wait_for_timeout(500)
    assert not page.locator("dialog").is_visible()


def test_the_keyboard_stays_where_it_is_while_rows_come(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 45)
    page = visit(session)
    page.evaluate("location.hash = '#/morning'")
    page.locator(".command button").first.focus()
    write_night(session, 3, seed=4)
    expect(page).to_have_title(re.compile("."))
    page.wait_for_function("() => document.querySelector('.morning').textContent.includes('48 experiments')")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_a_page_that_lost_its_server_finds_it_again(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 5)
    page = visit(session)
    expect(page.locator("#link")).to_have_text("live")
    away = session.workspace.root.with_name("away")
    session.workspace.root.rename(away)
    expect(page.locator("#link")).to_contain_text("not there any more")
    away.rename(session.workspace.root)
    expect(page.locator("#link")).to_have_text("live")


def test_experiments_are_filtered_sorted_and_opened_by_keyboard(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 90)
    page = visit(session)
    expect(page.locator(".stats")).to_be_visible()
    at_once = "() => { document.dispatchEvent(new KeyboardEvent('keydown', { key: '/' })); return document.activeElement.id; }"
    assert page.evaluate(at_once) == "filter", "no letter that is typed on is lost"
    page.keyboard.type("wider")
    expect(page.locator(".list [role=status]")).to_contain_text("of 90")
    assert all("wider" in text for text in page.locator("td.description").all_inner_texts())
    page.locator("#filter").fill("")
    page.get_by_role("button", name="score", exact=True).click()
    scores = [float(text) for text in page.locator("tbody td.score").all_inner_texts()[:10]]
    assert scores == sorted(scores, reverse=True)  # higher is better here
    page.get_by_role("button", name="discarded").click()
    expect(page.locator(".list [role=status]")).to_have_text(re.compile(r"^\d+ of 90"))
    assert not page.locator("tbody .badge.tried").count()
    page.locator(".list .scroller").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("#experiment-title")).to_contain_text("try")
    shown = int(page.url.rpartition("/")[2])
    page.evaluate(
        "() => { for (const _ of [1, 2, 3]) document.querySelector('dialog')"
        ".dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' })); }"
    )
    expect(page.locator("dialog .under")).to_contain_text(f"experiment {shown - 3} of")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(page).to_have_url(re.compile("#/experiments$"))


def test_one_experiment_shows_its_change(toy: Make, visit: Callable[..., Page]):
    session = toy()
    run(session)
    session.keep()
    session.apply_patch(
        "<<<<<<< SEARCH\nopen('result.txt', 'w').write('1.0')\n=======\nopen('result.txt', 'w').write('2.0')\n>>>>>>> REPLACE\n"
    )
    run(session, "twice as much", hypothesis="more is more")
    page = visit(session)
    page.get_by_role("link", name="twice as much").click()
    dialog = page.locator("dialog")
    expect(dialog.locator(".diff .add")).to_contain_text("write('2.0')")
    expect(dialog.locator(".diff .cut")).to_contain_text("write('1.0')")
    expect(dialog).to_contain_text("more is more")
    expect(dialog.locator(".phases")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#experiment-title")).to_have_text("an idea")


def test_the_chart_is_walked_by_keyboard_and_pointed_at(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 50)
    page = visit(session)
    chart = page.locator(".chart")
    expect(chart.locator("canvas")).to_be_visible()
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip")).to_contain_text("50 ·")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".tip")).to_contain_text("49 ·")
    assert "49" in (chart.get_attribute("aria-label") or "")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text("experiment 49")


def test_sessions_are_chosen_and_seen_together(toy: Make, visit: Callable[..., Page]):
    first = toy()
    write_night(first, 5)
    second = open_session(first.workspace.root, "second")
    write_night(second, 4, seed=3)
    page = visit(first)
    expect(page.locator("#sessions")).to_have_value("second")
    page.locator("#sessions").select_option("*")
    expect(page.locator(".night table")).to_contain_text(first.tag)
    page.locator("#sessions").select_option(first.tag)
    expect(page.locator(".stats")).to_contain_text("5")
    assert f"session={first.tag}" in page.url


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_passes_axe_and_fits(toy: Make, visit: Callable[..., Page], axe: str, size: str, theme: str):
    session = toy("print('step 1 loss 3')\nprint('step 2 loss 2')\nopen('result.txt', 'w').write('1.0')\n")
    run(session)
    session.keep("where we start")
    write_night(session, 90)
    other = open_session(session.workspace.root, "other")
    write_night(other, 6)
    page = visit(session, size, theme)
    expect(page.locator(".stats")).to_be_visible()
    for view in (*VIEWS, "experiment/1", "?everyone"):
        if view == "?everyone":
            page.evaluate("location.hash = '#/night'")
            page.locator("#sessions").select_option("*")
            expect(page.locator(".night table")).to_be_visible()
        else:
            page.evaluate("view => { location.hash = `#/${view}`; }", view)
            if view == "experiment/1":
                expect(page.locator("dialog .diff, dialog .facts").first).to_be_visible()
        page.wait_for_timeout(200)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view} is wider than the window by {wide}"
        page.evaluate(f"() => {{ {axe} }}")
        found = page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        told = [
            f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary'][:300]}" for one in found["violations"]
        ]
        assert not told, f"{view}: {told}"


def test_hostile_words_stay_words(toy: Make, visit: Callable[..., Page]):
    session = toy(f"print({HOSTILE!r})\nopen('result.txt', 'w').write('1.0')\n")
    run(session, HOSTILE)
    session.keep(HOSTILE)
    write_night(session, 45, description=HOSTILE)
    page = visit(session)
    for view in (*VIEWS, "experiment/1", "experiment/42"):
        page.evaluate("view => { location.hash = `#/${view}`; }", view)
        page.wait_for_timeout(300)
        assert page.evaluate("window.owned") is None
        assert not page.locator("main img, dialog img, main script, dialog script, main svg[onload], dialog svg[onload]").count()
    page.evaluate("location.hash = '#/experiment/1'")
    expect(page.locator("dialog")).to_contain_text("<script>window.owned = 1</script>")
    assert "\u202e" not in page.locator("body").inner_text()  # what would turn a line around


def test_nothing_is_fetched_from_elsewhere(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 5)
    page = visit(session)
    expect(page.locator(".stats")).to_be_visible()
    asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert asked and all(name.startswith(page.evaluate("location.origin")) for name in asked)


def test_ten_thousand_experiments_stay_smooth(toy: Make, visit: Callable[..., Page]):
    session = toy()
    write_night(session, 10_000)
    page = visit(session)
    expect(page.locator(".stats")).to_contain_text("10000")
    page.evaluate("location.hash = '#/experiments'")
    expect(page.locator("tbody tr").first).to_be_visible()
    assert page.locator("tbody tr").count() < 80, "only what is seen is made"
    page.keyboard.press("/")
    page.keyboard.type("try 9999")
    expect(page.locator(".list [role=status]")).to_contain_text("of 10000")
    page.locator("#filter").fill("")
    expect(page.locator(".list [role=status]")).to_have_text("10000 experiments")
    page.locator(".list .scroller").focus()
    page.keyboard.press("End")
    expect(page.locator("tbody tr.active td.number").first).to_have_text("1")
    write_night(session, 1, seed=5)
    page.keyboard.press("Home")
    expect(page.locator(".list [role=status]")).to_contain_text("10001")
