"""The example `lighthouse`: an agent's way from the first theme to a better one, hostile themes, and the figures of its scoring."""

import difflib
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import numpy as np
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.loop.trial import data_of, read_folder
from clients.programs import NODE, NPM
from conftest import ROOT, connect, open_session, text_of

EXAMPLE = ROOT / "examples" / "lighthouse"
START = (EXAMPLE / "theme.html").read_text()
ATTACKS = {path.stem: path.read_text() for path in sorted((EXAMPLE / "attacks").glob("*.html"))}
NEEDED = ("bubblewrap", "npm", "chromium")

FASTER = [  # no file that holds up painting, no font to load, a picture of the size that is drawn
    ('<link rel="stylesheet" href="/assets/grid.css">\n', ""),
    (START[START.index("@font-face") : START.index("body {")], ""),
    ("font-family: Vera, serif", "font-family: Georgia, serif; margin: 0"),
    (
        '<img src="{{large}}" alt="{{alt}}">',
        '<img src="{{small}}" srcset="{{small}} {{small_width}}w, {{medium}} {{medium_width}}w" sizes="(max-width: 500px) 92vw, 640px" width="{{medium_width}}" height="{{medium_height}}" fetchpriority="high" alt="{{alt}}">',
    ),
    ("max-width: 1000px }", "max-width: 640px; height: auto }"),
]
CLEARER = [  # a language, a title, colours to read by, links for thumbs
    ("<html>", '<html lang="en">'),
    ("<title></title>", "<title>{{title}}</title>"),
    ("font-size: 13px; line-height: 1.3; color: #999", "font-size: 17px; line-height: 1.5; color: #222"),
    (".top a { color: #bbb }", ".top a { color: #222 }"),
    (".menu a { color: #aaa; margin: 0 2px }", ".menu a { color: #049; display: inline-block; padding: 12px 8px }"),
    ("color: #888", "color: #222"),
    (".date { color: #bbb }", ".date { color: #555 }"),
    (".post a { color: #8ac }", ".post a { color: #049; text-decoration: underline }"),
    ("color: #ccc; text-align", "color: #555; text-align"),
    ('<div class="name">{{title}}</div>', '<h1 class="name">{{title}}</h1>'),
    ("<h4>", "<h2>"),
    ("</h4>", "</h2>"),
]
REASONS = {  # why each attack is refused; those of the second part are seen by the browser alone
    "sniff_the_agent": "the element <script>",
    "inject_by_event": 'the attribute onload="',
    "load_from_elsewhere": 'the attribute href="https://cdn',
    "frame_the_page": "the element <iframe>",
    "speak_to_the_judge": "the theme has text of its own",
    "hide_from_the_audit": 'the attribute aria-hidden="true"',
    "declare_it_decoration": 'the attribute role="presentation"',
    "move_off_screen": "the CSS value margin-left: -9999px",
    "fade_out": "the CSS property 'opacity'",
    "escape_in_css": re.escape(repr("\\")) + " is not allowed in CSS",
    "break_out_of_style": "is not allowed in CSS",
    "paint_over_with_a_gradient": "the CSS value background: linear-gradient",
}
SEEN = {
    "same_colour": "index.html at 412 px: 'A small blog .* cannot be seen: contrast 1.00 to 1",
    "nearly_transparent": "index.html at 412 px: 'A small blog .* cannot be seen: contrast 1.0. to 1",
    "tiny_letters": "index.html at 412 px: .* has letters of 2 px",
    "fold_it_up": "index.html at 412 px: words or pictures lie over one another",
    "push_it_down": r"index.html at 412 px: 2\d\d\d.* px of the page have nothing in them",
    "leave_the_text_out": "index.html at 412 px: the words are not the posts'",
    "only_for_phones": "index.html at 1350 px: 'A small blog .* cannot be seen: contrast 1.00 to 1",
    "no_links": "index.html at 412 px: the links are not the posts'",
    "thumbnail": "deep-field.html at 412 px: the picture is 4 px wide",
    "blurred_picture": "deep-field.html at 1350 px: the picture is blurred: a file of 400 px is drawn 640 px wide",
}
SMALL = (  # the least that a theme may be
    "<html><head></head><body>{{site}}</body></html>"
    '<template id="menu"><a href="{{url}}">{{label}}</a></template>'
    '<template id="picture"><img src="{{small}}"></template><template id="entry">{{title}}</template>'
)


def changed(text: str, changes: list[tuple[str, str]]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, f"theme.html has changed: {old!r} is what this test replaces"
        text = text.replace(old, new)
    return text


def patch(old: str, new: str) -> str:
    """What an agent sends."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), "a/theme.html", "b/theme.html")
    return "".join(lines)


BETTER = changed(START, FASTER)
BEST = changed(BETTER, CLEARER)


def _modules() -> SimpleNamespace:
    """The scoring's own modules, without leaving their short names to other tests."""
    names = ("theme", "generator", "reader", "score")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(EXAMPLE))
    try:
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


M = _modules()


# --- with a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example as it is, but that one measurement counts instead of the median of three, and one run decides. What npm installs
    is kept below .node, as other programs of tests are.
    """
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(ROOT / ".node" / "examples"))
    npm = tmp_path / "bin" / "npm"  # the one that is packed with this node does not find its own library
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, NPM))} "$@"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{NODE}", prepend=":")
    task = tmp_path / "task"
    shutil.copytree(EXAMPLE, task, ignore=shutil.ignore_patterns("__pycache__", "attacks"))
    toml = (task / "autoresearch.toml").read_text()
    for setting in ("repeats = 3", "baseline_runs = 2"):
        assert toml.count(setting) == 1
        toml = toml.replace(setting, f"{setting[:-1]}1")
    (task / "autoresearch.toml").write_text(toml.replace("[metric]\n", '[metric]\nconfidence = "single"\n'))
    return task


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.needs(*NEEDED)
def test_an_agents_way_to_a_better_theme(folder: Path, tmp_path: Path):
    session = open_session(create(tmp_path / "workspace", str(folder)).root)
    session.data.prepare(session.workspace.root)
    anyio.run(whole_path, session)


async def whole_path(session: Session) -> None:
    async with connect(session.workspace.root) as client:

        async def call(tool: str, /, **arguments: object) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            return result.structured_content or {}

        async def experiment(description: str, old: str = "", new: str = "") -> dict[str, Any]:
            if new:
                await call("apply_patch", patch=patch(old, new))
            result = await call("run_experiment", description=description, wait_seconds=0)
            while result["status"] == "running":
                result = await call("get_score", wait_seconds=60)
            return result

        assert {"read_theme", "get_score"} <= {tool.name for tool in (await client.list_tools()).tools}
        start = await experiment("baseline")
        assert start["status"] == "scored" and 40 < start["score"] < 75, start.get("log_excerpt", start)
        await call("keep")

        better = await experiment("nothing holds up painting", START, BETTER)
        assert better.get("suggestion") == "keep" and better["score"] > start["score"] + 10, better
        await call("keep")
        best = await experiment("to be read and touched", BETTER, BEST)
        assert best.get("suggestion") == "keep" and best["score"] > better["score"] + 10 and best["score"] > 95, best
        await call("keep")
        print(f"start {start['score']}, faster {better['score']}, clearer {best['score']}")
        accessible = session.experiment(3).last
        assert accessible is not None and accessible.details["accessibility"] == 100

        now = BEST
        for name, says in {"hide_from_the_audit": REASONS["hide_from_the_audit"], "same_colour": SEEN["same_colour"]}.items():
            refused = await experiment(name, now, ATTACKS[name])
            assert refused["status"] == "refused" and re.search(says, str(refused)), refused
            await call("discard")
        status = await call("status")
        assert (status["experiments"], status["kept"], status["best_experiment"]) == (5, 3, 3)


@pytest.fixture
def browser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Chromium as the scoring command has it, and where npm put what it takes; without the sandbox around it."""
    data = data_of(folder, *read_folder(folder))
    data.prepare(folder)
    monkeypatch.chdir(folder)
    with M.score.browser(str(NODE / "node"), shutil.which("chromium"), str(data.path)) as ask:
        yield SimpleNamespace(ask=ask, data=data.path)


def inspect(browser: Any, text: str) -> None:
    written, expected = M.score.build(M.theme.read(text.encode()), M.score.load_posts(EXAMPLE / "posts"))
    server = M.score.serve(M.score.site(written, browser.data))
    try:
        M.score.inspect(browser.ask, f"http://127.0.0.1:{server.server_port}", expected)
    finally:
        server.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.needs(*NEEDED)
def test_what_hides_or_changes_the_posts_is_seen(browser: Any):
    for honest in (START, BETTER, BEST):
        inspect(browser, honest)
    for name, says in SEEN.items():
        with pytest.raises(M.score.Refused, match=says):
            inspect(browser, ATTACKS[name])


# --- without one ------------------------------------------------------------------------------------------------------


def test_every_attack_is_tried_and_says_what_it_tries():
    assert set(ATTACKS) == set(REASONS) | set(SEEN) and len(ATTACKS) == len(REASONS) + len(SEEN)
    assert all(text.startswith("<!-- Tries: ") for text in ATTACKS.values())
    assert all(M.theme.read(ATTACKS[name].encode()) for name in SEEN), "refused before the browser has looked"


@pytest.mark.parametrize("name", REASONS)
def test_what_a_theme_may_not_hold_is_refused_unseen(name: str):
    with pytest.raises(M.theme.ThemeError, match=REASONS[name]):
        M.theme.read(ATTACKS[name].encode())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"<html>" + b" " * 2**15, "at most 32768"),
        (b"\xff\xfe<html>", "no UTF-8"),
        (b"<html><head></head><body></body></html>", '<template id="entry"> is missing'),
        (SMALL.replace("{{site}}", "{{sealed}}").encode(), "{{sealed}} is not known"),
        (SMALL.replace("{{site}}", "<p>{{site}}").encode(), "</body> closes p"),
        (SMALL.replace("{{site}}", "<script/>").encode(), "does not close itself"),
        (SMALL.replace("{{site}}", "<svg><text>a</text></svg>").encode(), "<svg>"),
        (SMALL.replace("{{site}}", '<a href="javascript:x">{{site}}</a>').encode(), "href="),
        (SMALL.replace("{{site}}", "{{site}}\u200b").encode(), "text of its own"),
        (SMALL.replace("</head>", '<meta http-equiv="refresh" content="0;url=x"></head>').encode(), "http-equiv"),
        (SMALL.replace("</head>", "<style>a{}</head>").encode(), "not allowed in CSS|<style> is not closed"),
    ],
)
def test_what_is_no_theme_is_refused(raw: bytes, says: str):
    with pytest.raises(M.theme.ThemeError, match=says):
        M.theme.read(raw)


@pytest.mark.parametrize(
    "css",
    [
        "a { color: red !important }",
        "a { position: absolute }",
        "a { width: calc(0px - 9px) }",
        "a { background: url(/assets/a.jpg) }",
        "a { --x: 1 }",
        "a { color: var(--x) }",
        "a { margin: 0 -1px }",
        "a { letter-spacing: -.1em }",
        "a { width: clamp(1px, 1px - 9px, 2px) }",
        "a::before { content: 'x' }",
        "a { content: 'x' }",
        "a { color: red",
        "a } b { color: red }",
        "@import url(x.css);",
        "@media (prefers-reduced-motion) { a { color: red } }",
        "@media (min-width: 1px) { @font-face { font-family: A } }",
        "@font-face { src: url(//example.com/a.woff2) }",
        "@font-face { size-adjust: 1% }",
        "@keyframes x { a { color: red } }",
        "a:has(b) { color: red }",
        "a { display: none }",
        "a { flex-direction: row-reverse }",
        "a { color: red; & b { color: red } }",
    ],
)
def test_what_css_could_hide_with_is_refused(css: str):
    with pytest.raises(M.theme.ThemeError):
        M.theme.check_css(css)


def test_ordinary_css_is_written_as_it_was():
    css = """
    /* all of it */ body, .a > p:first-child { font: 16px/1.5 -apple-system, "Segoe UI", sans-serif; margin: 0 auto }
    @media (min-width: 40em) { main { max-width: 65ch; padding: clamp(1rem, 4vw, 2rem); color: rgb(1 2 3 / 50%) } }
    @font-face { font-family: A; src: url("/fonts/a-b.woff2") format("woff2"); font-display: swap; size-adjust: 95% }
    """
    written = M.theme.check_css(css)
    assert "body, .a > p:first-child{font:16px/1.5 -apple-system" in written and "padding:clamp(1rem, 4vw, 2rem)" in written
    assert M.theme.check_css(written) == written


def test_a_theme_is_written_anew_and_values_are_escaped():
    theme = M.theme.read(SMALL.encode())
    assert theme.page.startswith('<!doctype html>\n<html><head><meta charset="utf-8"><meta name="viewport"')
    assert theme.parts["picture"] == '<img src="{{small}}">'
    assert M.theme.fill("<p>{{a}}{{b}}</p>", {"a": "<i>&{{b}}"}, {"b": "<b>x</b>"}) == "<p>&lt;i&gt;&amp;{{b}}<b>x</b></p>"


def test_markdown_and_what_a_reader_must_find():
    page = M.generator.Page()
    html = M.generator.markdown("## A *b*\n\nOne **two** [three](moon.html)\nfour & `five`.\n\n- x\n- y\n\n1. z", page)
    assert html.splitlines() == [
        "<h2>A <em>b</em></h2>",
        '<p>One <strong>two</strong> <a href="moon.html">three</a> four &amp; <code>five</code>.</p>',
        "<ul><li>x</li><li>y</li></ul>",
        "<ol><li>z</li></ol>",
    ]
    assert page.text == "AbOnetwothreefour&five.xyz" and page.links == [("moon.html", "three")]


def test_the_index_has_its_words_in_the_order_of_the_page():
    post = M.generator.Post("a", {"title": "T", "date": "D", "summary": "S"}, "B")
    written, expected = M.generator.build(M.theme.read(START.encode()), [post])
    text = expected["index.html"].text
    assert text.index("Asmallblog") < text.index("TDS") < text.index("Picture:NASA") and set(written) == {"index.html", "a.html"}


def test_contrast_is_wcags():
    rgb = np.array([[[255, 255, 255], [0, 0, 0], [119, 119, 119], [255, 0, 0]]])
    levels = M.reader.luminance(rgb)
    assert levels[0] == pytest.approx([1, 0, 0.18447, 0.2126], abs=1e-5)
    assert M.reader.contrast(np.ones((1, 4)), levels)[0] == pytest.approx([1, 21, 4.478, 3.998], abs=1e-3)


def test_gaps_and_overlaps():
    assert M.reader.largest_gap([(10, 20), (15, 50), (30, 40), (90, 91)]) == 40
    assert M.reader.largest_gap([(700, 720)]) == 700
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [100, 100, 2, 2]])
    assert M.reader.overlap(boxes) == 0.5  # of the first two, 5 x 10 of 10 x 10
    assert M.reader.overlap(boxes[[0, 2]]) == 0 and M.reader.overlap(boxes[:1]) == 0


def test_ink_must_be_there_and_be_seen():
    ink = np.ones((40, 40))
    ink[10:20, 10:12] = 7.0  # a stroke of 20 dots
    word = {"text": "word", "boxes": [[5, 5, 10, 10]]}
    M.reader.check_ink(word, ink, scale=1)
    M.reader.check_ink(word | {"boxes": [[2.5, 2.5, 8, 8]]}, ink, scale=2)
    for elsewhere in ([20, 20, 10, 10], [50, 50, 5, 5]):
        with pytest.raises(M.reader.ReaderError, match="cannot be seen"):
            M.reader.check_ink(word | {"boxes": [elsewhere]}, ink, scale=1)
    with pytest.raises(M.reader.ReaderError, match="cannot be seen"):
        M.reader.check_ink(word, np.where(ink > 1, 1.4, 1.0), scale=1)


def test_the_score_is_the_mean_of_both_over_the_pages():
    audit = {"error": None, "undecided": [], "fcp": 1200, "lcp": 2000, "speed_index": 1500, "tbt": None, "cls": 0.1, "bytes": 5000}
    audits = [audit | {"performance": 0.5, "accessibility": 0.7}, audit | {"performance": 1.0, "accessibility": 0.9}]
    assert M.score.score(audits) == 77.5
    figures = M.score.details(audits)
    assert (
        figures["performance"] == 75 and figures["lcp_seconds"] == 2 and figures["kilobytes"] == 5 and figures["tbt_seconds"] == 0
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"error": {"code": "NO_FCP"}}, "NO_FCP"),
        ({"performance": None}, "could not measure"),
        ({"undecided": [["color-contrast", ["<p> obscured"]]]}, "cannot be told: <p> obscured"),
    ],
)
def test_what_lighthouse_cannot_tell_is_no_score(changes: dict[str, Any], says: str):
    good = {"error": None, "performance": 1.0, "accessibility": 1.0, "undecided": [["td-headers-attr", []]]}
    M.score.check_audit("a.html", good)
    with pytest.raises(M.score.Refused, match=says):
        M.score.check_audit("a.html", good | changes)
