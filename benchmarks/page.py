"""How fast the page is at a long night: in Chromium, from the link to the first paint and the drawn chart, and from a row of the
ledger to its point on the chart.

    python benchmarks/page.py [EXPERIMENTS]

A night is written into a ledger without a run; server and browser share this machine.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import Page, sync_playwright  # noqa: E402

from autoresearch_mcp.create import create  # noqa: E402
from autoresearch_mcp.loop.session import Session  # noqa: E402
from conftest import SCORE, TOY, WORK, open_session  # noqa: E402
from test_dashboard import dashboard  # noqa: E402
from written_night import write_night  # noqa: E402

TIMES, UPDATES = 3, 8
SCROLL = """async () => {
    const list = document.querySelector('.list .scroller'), frames = [];
    let last = performance.now();
    for (let i = 0; i < 120; i += 1) {
        list.scrollTop += 900;
        await new Promise(requestAnimationFrame);
        frames.push(performance.now() - last);
        last = performance.now();
    }
    return frames.sort((a, b) => a - b);
}"""


def visit(page: Page, session: Session) -> tuple[float, float]:
    """Seconds to the first paint and to the drawn chart."""
    with dashboard(session.workspace.root) as link:
        page.goto(link)
        page.wait_for_selector(".chart canvas")
        drawn = page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
        )
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        return paint / 1000, drawn / 1000


def update(page: Page, session: Session, number: int) -> float:
    """Seconds from the row to what is seen, of which up to one is until the server looks again."""
    write_night(session, 1, seed=number)
    began = time.perf_counter()
    page.wait_for_function("count => document.querySelector('.stats')?.textContent.includes(String(count))", arg=number)
    return time.perf_counter() - began


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        task = Path(folder, "task")
        task.mkdir()
        for name, text in (("autoresearch.toml", TOY), ("work.py", WORK), ("score.py", SCORE)):
            (task / name).write_text(text)
        session = open_session(create(Path(folder, "workspace"), str(task)).root)
        write_night(session, count)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        times = [visit(browser.new_context(viewport={"width": 1440, "height": 900}).new_page(), session) for _ in range(TIMES)]
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        with dashboard(session.workspace.root) as link:
            page.goto(link)
            page.wait_for_selector(".chart canvas")
            updates = [update(page, session, count + number) for number in range(1, UPDATES + 1)]
            page.evaluate("location.hash = '#/experiments'")
            page.wait_for_selector("tbody tr")
            frames = page.evaluate(SCROLL)
        browser.close()
    print(f"{count} experiments, {TIMES} visits (medians):")
    print(f"  first paint   {median(paint for paint, _ in times):.2f} s")
    print(f"  chart drawn   {median(drawn for _, drawn in times):.2f} s, the server's reading of the ledger included")
    print(
        f"  an update     {median(updates):.2f} s from the ledger's row to the page, of which up to 1 s is until the server looks"
    )
    print(f"  scrolling     {median(frames):.0f} ms a frame, nine of ten under {frames[int(0.9 * len(frames))]:.0f} ms")


if __name__ == "__main__":
    main()
