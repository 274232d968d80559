"""Builds the blog: posts in Markdown and a theme give the files of a site, and what a reader must find on each page.

A post has lines `name: value`, an empty line, and Markdown: paragraphs, `##` headings, lists, `*emphasis*`, `**strong**`, `` `a` ``
for code, and links. Nothing of a theme is text of a reader's: all words come from here.
"""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

from theme import Theme, fill

SITE = "Clear Skies"
INDEX_TITLE = "Notes from the back garden"
INTRO = "A small blog about looking up, with and without a telescope."
FOOTER = "Picture: NASA and ESA. Words: the editors of Clear Skies."
MENU = [("index.html", "All notes"), ("moon.html", "The Moon"), ("dark.html", "Dark eyes"), ("deep-field.html", "Far away")]
PICTURES = {"deep-field": {400: 349, 800: 698, 1000: 872}}
"""By name: width and height of each file, in pixels."""
SIZES = ("small", "medium", "large")
INLINE = re.compile(r"\*\*(?P<strong>[^*]+)\*\*|\*(?P<em>[^*]+)\*|`(?P<code>[^`]+)`|\[(?P<text>[^\]]+)\]\((?P<url>[\w.-]+)\)")


@dataclass
class Page:
    """What a reader must find: the words in their order, the links with their words, the picture."""

    words: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    picture: str = ""
    alt: str = ""

    @property
    def text(self) -> str:
        """Without white space, which layout may put anywhere."""
        return squeezed("".join(self.words))


@dataclass(frozen=True)
class Post:
    name: str
    head: dict[str, str]
    body: str

    @property
    def url(self) -> str:
        return f"{self.name}.html"


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def read_post(name: str, text: str) -> Post:
    head, _, body = text.partition("\n\n")
    return Post(name, dict(line.split(": ", 1) for line in head.splitlines()), body)


def inline(text: str, page: Page) -> str:
    """A line of Markdown as HTML; its words and links go to the page."""
    parts: list[str] = []
    at = 0
    for match in INLINE.finditer(text):
        before = text[at : match.start()]
        page.words.append(before)
        parts.append(html.escape(before))
        (kind, inner) = next((kind, inner) for kind, inner in match.groupdict().items() if inner is not None)
        page.words.append(inner)
        if kind == "text":
            page.links.append((match["url"], inner))
            parts.append(f'<a href="{html.escape(match["url"])}">{html.escape(inner)}</a>')
        else:
            parts.append(f"<{kind}>{html.escape(inner)}</{kind}>")
        at = match.end()
    page.words.append(text[at:])
    return "".join([*parts, html.escape(text[at:])])


def markdown(text: str, page: Page) -> str:
    """Blocks of Markdown as HTML."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if block.startswith("## "):
            blocks.append(f"<h2>{inline(block[3:], page)}</h2>")
        elif re.match(r"- |\d+\. ", block):
            kind = "ul" if block.startswith("- ") else "ol"
            items = [inline(re.sub(r"^(- |\d+\. )", "", line), page) for line in lines]
            blocks.append(f"<{kind}>" + "".join(f"<li>{item}</li>" for item in items) + f"</{kind}>")
        else:
            blocks.append(f"<p>{inline(' '.join(lines), page)}</p>")
    return "\n".join(blocks)


def picture_values(name: str, alt: str) -> dict[str, str]:
    values = {"alt": alt}
    for size, (width, height) in zip(SIZES, PICTURES[name].items(), strict=True):
        values |= {size: f"/assets/{name}-{width}.jpg", f"{size}_width": str(width), f"{size}_height": str(height)}
    return values


def build(theme: Theme, posts: list[Post]) -> tuple[dict[str, str], dict[str, Page]]:
    """The site's pages by file name, and what each must show."""
    posts = sorted(posts, key=lambda post: post.head["date"], reverse=True)
    written: dict[str, str] = {}
    expected: dict[str, Page] = {}
    for post in [None, *posts]:
        page = Page()
        url, title, date = (post.url, post.head["title"], post.head["date"]) if post else ("index.html", INDEX_TITLE, "")
        page.words += [SITE, *(label for _, label in MENU), title, date]
        page.links += [("index.html", SITE), *MENU]
        picture = ""
        if post and "picture" in post.head:
            page.picture, page.alt = post.head["picture"], post.head["alt"]
            picture = fill(theme.parts["picture"], picture_values(page.picture, page.alt), {})
        text = markdown(post.body, page) if post else index(theme, posts, page)
        page.words.append(FOOTER)
        menu = "".join(fill(theme.parts["menu"], {"url": url, "label": label}, {}) for url, label in MENU)
        values = {"site": SITE, "home": "index.html", "title": title, "date": date, "footer": FOOTER}
        written[url] = fill(theme.page, values, {"menu": menu, "picture": picture, "text": text})
        expected[url] = page
    return written, expected


def index(theme: Theme, posts: list[Post], page: Page) -> str:
    entries = []
    for post in posts:
        values = {"url": post.url, "title": post.head["title"], "date": post.head["date"], "summary": post.head["summary"]}
        page.words += [values[name] for name in ("title", "date", "summary")]
        page.links.append((post.url, values["title"]))
        entries.append(fill(theme.parts["entry"], values, {}))
    page.words.insert(-3 * len(posts), INTRO)
    return f"<p>{html.escape(INTRO)}</p>\n" + "\n".join(entries)


def load_posts(folder: Path) -> list[Post]:
    return [read_post(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.md"))]
