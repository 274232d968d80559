"""Reads theme.html as data: a list of what it may hold, and everything else refused. A browser gets what is written anew from the
result, never the file itself, so nothing depends on how two parsers read the same bytes.

Not in the list: scripts and what acts like one, text of its own, addresses but those of this site, and every way of CSS to hide,
move or cover what is there (position, transform, clip, opacity, filter, animation, negative lengths, generated content).
"""

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

BYTES = 32 * 1024
PARTS = {
    "menu": {"url", "label"},
    "picture": {"alt", *(f"{size}{end}" for size in ("small", "medium", "large") for end in ("", "_width", "_height"))},
    "entry": {"url", "title", "date", "summary"},
}
"""By the id of a <template>: what it may mention."""
PAGE = {"site", "home", "title", "date", "footer"}
BLOCKS = {"menu", "picture", "text"}
"""Placeholders of a page that stand for HTML, and so only between tags."""
MARK = re.compile(r"\{\{(\w+)\}\}")

VOID = {"img", "link", "meta", "source", "hr", "br"}
TEXT_TAGS = """
    header nav main footer article section aside div span h1 h2 h3 h4 h5 h6 p ul ol li a img picture source time figure
    hr br strong em
"""
IN_BODY = set(TEXT_TAGS.split())
TAGS = {"html", "head", "title", "link", "meta", "style", "body", "template", *IN_BODY}
LANDMARKS = {"header", "nav", "main", "footer", "article", "section", "aside", "ul", "ol"}
LOCAL = re.compile(r"/(assets|fonts)/[a-z0-9-]+\.(css|jpg|woff2?)")
PICTURE = re.compile(r"\{\{(small|medium|large)\}\}")
CANDIDATE = "(" + "|".join(rf"\{{\{{{size}\}}\}} \{{\{{{size}_width\}}\}}w" for size in ("small", "medium", "large")) + ")"
SIZE = re.compile(r"(\(m(ax|in)-width: ?\d{2,4}px\) )?\d{1,4}(\.\d+)?(px|vw|em|rem)")
DIGITS = re.compile(r"\d{1,4}|\{\{(small|medium|large)_(width|height)\}\}")
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}( [a-z][a-z0-9-]{0,30}){0,5}")
ATTRIBUTES: dict[tuple[str, str], re.Pattern[str]] = {
    ("html", "lang"): re.compile(r"[a-z]{2}(-[A-Z]{2})?"),
    ("link", "rel"): re.compile(r"stylesheet|preload"),
    ("link", "href"): LOCAL,
    ("link", "as"): re.compile("style|font|image"),
    ("link", "type"): re.compile(r"font/woff2?|text/css|image/jpeg"),
    ("link", "crossorigin"): re.compile("|anonymous"),
    ("link", "media"): re.compile(r"all|print|screen|\((min|max)-width: ?\d{2,4}px\)"),
    ("link", "fetchpriority"): re.compile("high|low|auto"),
    ("meta", "name"): re.compile("description"),
    ("meta", "content"): re.compile(r"\{\{title\}\}"),
    ("template", "id"): re.compile("|".join(PARTS)),
    ("a", "href"): re.compile(r"\{\{(home|url)\}\}"),
    ("time", "datetime"): re.compile(r"\{\{date\}\}"),
    ("img", "src"): PICTURE,
    ("img", "alt"): re.compile(r"\{\{alt\}\}"),
    ("img", "loading"): re.compile("lazy|eager"),
    ("img", "decoding"): re.compile("sync|async|auto"),
    ("img", "fetchpriority"): re.compile("high|low|auto"),
    ("source", "media"): re.compile(r"\((min|max)-width: ?\d{2,4}px\)"),
}
for _tag in ("img", "source"):
    ATTRIBUTES |= {(_tag, name): DIGITS for name in ("width", "height")}
    ATTRIBUTES |= {
        (_tag, "srcset"): re.compile(rf"{CANDIDATE}(, {CANDIDATE}){{0,3}}"),
        (_tag, "sizes"): re.compile(rf"{SIZE.pattern}(, {SIZE.pattern}){{0,3}}"),
    }
ROLE = re.compile("banner|navigation|main|contentinfo")
LABEL = re.compile(r"[A-Za-z ]{1,40}")

PROPERTY_NAMES = """
    color background-color background font font-family font-size font-weight font-style font-variant font-kerning
    line-height letter-spacing word-spacing text-align text-decoration text-decoration-color text-decoration-line
    text-decoration-style text-decoration-thickness text-underline-offset hyphens overflow-wrap vertical-align margin
    margin-top margin-right margin-bottom margin-left margin-block margin-inline padding padding-top padding-right
    padding-bottom padding-left padding-block padding-inline border border-top border-right border-bottom border-left
    border-color border-style border-width border-radius border-collapse width max-width min-width height min-height
    max-height aspect-ratio box-sizing display float clear flex flex-direction flex-wrap flex-grow flex-shrink
    flex-basis align-items align-content align-self justify-content justify-items justify-self gap row-gap column-gap
    grid-template-columns list-style list-style-type list-style-position outline outline-color outline-offset
    outline-style outline-width
"""
PROPERTIES = set(PROPERTY_NAMES.split())
VALUES = {
    "display": "block|inline|inline-block|flex|inline-flex|grid|list-item|flow-root",
    "flex-direction": "row|column",
    "flex-wrap": "wrap|nowrap",
    "list-style": "none|disc|circle|square|decimal",
    "list-style-type": "none|disc|circle|square|decimal",
}
FONT = r"url\([\"']?/fonts/[a-z0-9-]+\.woff2?[\"']?\)( format\([\"']?woff2?[\"']?\))?"
FONT_FACE = {
    "font-family": r"[\"']?[A-Za-z ]{1,40}[\"']?",
    "font-style": "normal|italic",
    "font-weight": r"normal|bold|[1-9]00( [1-9]00)?",
    "font-display": "auto|block|swap|fallback|optional",
    "src": rf"{FONT}(, ?{FONT}){{0,3}}",
    "unicode-range": r"U\+[0-9A-Fa-f]{1,5}(-[0-9A-Fa-f]{1,5})?(, ?U\+[0-9A-Fa-f]{1,5}(-[0-9A-Fa-f]{1,5})?){0,9}",
    **dict.fromkeys(("size-adjust", "ascent-override", "descent-override"), r"([7-9]\d|1[0-3]\d)(\.\d+)?%"),
    "line-gap-override": r"\d{1,2}(\.\d+)?%",
}
LENGTH = r"\d+(\.\d+)?(px|em|rem|ch|vw|vh|%)?"
FUNCTIONS = re.compile(
    rf"rgba?\([\d .,%/]+\)|hsla?\([\d .,%/deg]+\)|clamp\({LENGTH}, ?{LENGTH}, ?{LENGTH}\)"
    rf"|repeat\((\d|auto-fit|auto-fill), ?[\w.% ]+\)|minmax\({LENGTH}, ?[\d.]*(fr|px|em|rem|%)\)"
)
VALUE = re.compile(r"[\w#%., '\"/-]*")
PSEUDO = r":(hover|focus|focus-visible|first-child|last-child|root|link|active|nth-child\(\w{1,4}\))"
SELECTOR = re.compile(rf"([a-z][a-z0-9]*|\*)?([.#][a-z][a-z0-9-]*)*({PSEUDO})*")
MEDIA = re.compile(r"@media( (screen|print|all)( and)?)?( ?\((min|max)-width: ?\d{2,4}(px|em|rem)\))?")


class ThemeError(Exception):
    """The theme holds what it may not; the text says what."""


@dataclass
class Theme:
    page: str
    parts: dict[str, str] = field(default_factory=dict)


def read(raw: bytes) -> Theme:
    """The theme, checked and written anew. Raises ThemeError."""
    if len(raw) > BYTES:
        raise ThemeError(f"the theme has {len(raw)} bytes; at most {BYTES} are allowed")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ThemeError("the theme is no UTF-8") from error
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.theme()


def fill(text: str, values: dict[str, str], blocks: dict[str, str]) -> str:
    """Puts values, escaped, and blocks of HTML where the placeholders are."""
    return MARK.sub(lambda match: blocks[match[1]] if match[1] in blocks else html.escape(values[match[1]]), text)


class _Reader(HTMLParser):
    """Checks every token and writes it anew."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._part = ""
        self._parts: dict[str, str] = {}
        self._page: list[str] = []

    def handle_decl(self, decl: str) -> None:
        if decl.strip().lower() != "doctype html":
            raise ThemeError("the only declaration is <!doctype html>")

    def handle_pi(self, data: str) -> None:
        raise ThemeError("processing instructions are not allowed")

    def unknown_decl(self, data: str) -> None:
        raise ThemeError("marked sections are not allowed")

    def handle_comment(self, data: str) -> None:
        """Left out of what is written."""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            raise ThemeError(f"<{tag}/> does not close itself in HTML")
        self.handle_starttag(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            raise ThemeError(f"the element <{tag}> is not allowed")
        self._place(tag)
        given = {name: "" if value is None else value for name, value in attrs}
        if len(given) != len(attrs):
            raise ThemeError(f"<{tag}> has an attribute twice")
        for name, value in given.items():
            _check_attribute(tag, name, value, self._known)
        if tag == "template":
            if given.get("id") in (None, *self._parts) or self._part:
                raise ThemeError("a <template> has the id menu, picture or entry, each once, and holds no other")
            self._part, self._out = given["id"], []
            self._open.append(tag)
            return
        if tag == "link" and given.get("rel") == "preload" and "as" not in given:
            raise ThemeError('<link rel="preload"> needs as')
        written = "".join(f' {name}="{html.escape(value)}"' for name, value in given.items())
        self._emit(f"<{tag}{written}>")
        if tag == "head":
            self._emit('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open[-1] != tag:
            raise ThemeError(f"</{tag}> closes {self._open[-1] if self._open else 'nothing'}; close what was opened, in turn")
        self._open.pop()
        if tag == "template":
            self._parts[self._part] = "".join(self._out).strip()
            self._part = ""
            return
        self._emit(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self._emit(check_css(data))
            return
        marks = MARK.findall(data)
        if MARK.sub("", data).strip():
            raise ThemeError(f"the theme has text of its own: {MARK.sub('', data).strip()[:60]!r}; all words come from the posts")
        unknown = [mark for mark in marks if mark not in self._known | (set() if self._part else BLOCKS)]
        if unknown:
            raise ThemeError(f"{{{{{unknown[0]}}}}} is not known there")
        if marks and "body" not in self._open and not self._part and self._open[-1:] != ["title"]:
            raise ThemeError("placeholders stand in <title>, in <body> and in the templates")
        if self._open[-1:] == ["title"] and set(marks) & BLOCKS:
            raise ThemeError("a <title> holds text alone")
        self._emit(data)

    @property
    def _known(self) -> set[str]:
        return PARTS[self._part] if self._part else PAGE

    def _place(self, tag: str) -> None:
        """Where an element stands: one html, in it one head and one body; templates beside or in them, never in one another."""
        if self._part:
            if tag not in IN_BODY:
                raise ThemeError(f"<{tag}> stands in no <template>")
            return
        if tag == "html" and (self._open or "<html" in "".join(self._page)):
            raise ThemeError("there is one <html>, outside of all")
        if tag in ("head", "body") and (self._open != ["html"] or f"<{tag}" in "".join(self._page)):
            raise ThemeError(f"there is one <{tag}>, in <html>")
        if tag in ("title", "link", "meta", "style") and self._open != ["html", "head"]:
            raise ThemeError(f"<{tag}> stands in <head>")
        if tag in IN_BODY and self._open[:2] != ["html", "body"]:
            raise ThemeError(f"<{tag}> stands in <body>")
        if tag == "a" and "a" in self._open:
            raise ThemeError("a link holds no link")

    def _emit(self, text: str) -> None:
        (self._out if self._part else self._page).append(text)

    def theme(self) -> Theme:
        if self._open:
            raise ThemeError(f"<{self._open[-1]}> is not closed")
        page = "".join(self._page)
        if missing := sorted(set(PARTS) - set(self._parts)):
            raise ThemeError(f'<template id="{missing[0]}"> is missing')
        if "<body" not in page or "<head" not in page:
            raise ThemeError("the theme has no <head> or no <body>")
        return Theme(f"<!doctype html>\n{page.strip()}\n", self._parts)


def _check_attribute(tag: str, name: str, value: str, known: set[str]) -> None:
    pattern = ATTRIBUTES.get((tag, name))
    if name == "class" or (name == "id" and tag != "template"):
        pattern = NAME
    elif name == "role" and tag in ("div", "section"):
        pattern = ROLE
    elif name == "aria-label" and tag in LANDMARKS:
        pattern = LABEL
    if pattern is None or not pattern.fullmatch(value):
        raise ThemeError(f'the attribute {name}="{value[:60]}" of <{tag}> is not allowed')
    if unknown := [mark for mark in MARK.findall(value) if mark not in known]:
        raise ThemeError(f"{{{{{unknown[0]}}}}} is not known in <{tag}>")


# --- CSS --------------------------------------------------------------------------------------------------------------


def check_css(text: str) -> str:
    """The same rules, written anew. Raises ThemeError."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    if wrong := re.search(r"[\\<&!]|/\*", text):
        raise ThemeError(f"{wrong[0]!r} is not allowed in CSS")
    rules, rest = _rules(text)
    if rest.strip():
        raise ThemeError(f"CSS that is no rule: {rest.strip()[:60]!r}")
    return "".join(rules)


def _rules(text: str) -> tuple[list[str], str]:
    """The rules that the text begins with, and what is left of it."""
    written: list[str] = []
    while match := re.match(r"\s*([^{}]+)\{", text):
        head, rest = " ".join(match[1].split()), text[match.end() :]
        if head.startswith("@media"):
            if not MEDIA.fullmatch(head):
                raise ThemeError(f"{head[:60]!r} is not allowed; @media asks for min-width or max-width alone")
            inner, rest = _rules(rest)
            if any(rule.startswith("@") for rule in inner):
                raise ThemeError("a rule with @ stands in no other")
            body = "".join(inner)
            rest = rest.lstrip()
            if not rest.startswith("}"):
                raise ThemeError(f"{head} is not closed")
            text = rest[1:]
        else:
            body, closed, text = rest.partition("}")
            if not closed or "{" in body:
                raise ThemeError(f"{head[:60]!r} is not closed")
            body = _declarations(body, head == "@font-face")
            if head != "@font-face":
                for selector in re.split(r" ?, ?", head):
                    if not all(SELECTOR.fullmatch(part) and part for part in re.split(r" ?[>+~] ?| ", selector)):
                        raise ThemeError(f"the selector {selector[:60]!r} is not allowed")
        written.append(f"{head}{{{body}}}\n")
    return written, text


def _declarations(text: str, font_face: bool) -> str:
    written = []
    for declaration in filter(str.strip, text.split(";")):
        name, colon, value = declaration.partition(":")
        name, value = name.strip().lower(), " ".join(value.split())
        allowed = FONT_FACE if font_face else PROPERTIES
        if not colon or name not in allowed:
            raise ThemeError(f"the CSS property {name[:40]!r} is not allowed" + (" in @font-face" if font_face else ""))
        exact = FONT_FACE.get(name) if font_face else VALUES.get(name)
        if exact is not None:
            good = re.fullmatch(exact, value)
        else:
            plain = FUNCTIONS.sub("", value)
            good = value and VALUE.fullmatch(plain) and not re.search(r"-(?![A-Za-z])|\d-", plain)
        if not good:
            raise ThemeError(f"the CSS value {name}: {value[:60]} is not allowed")
        written.append(f"{name}:{value}")
    return ";".join(written)
