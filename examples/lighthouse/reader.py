"""What a reader sees of a page, held against what the posts say: every word there in its order, in sight, and the picture too.

The browser gives the words with their boxes and three screenshots: the page, the same without ink, the same without pictures. Where
the first two do not differ, a word is not to be seen, for whatever reason.
"""

import base64
import io
from typing import Any

import numpy as np
from generator import PICTURES, Page, squeezed
from PIL import Image

Array = np.ndarray
FONT_SIZES = (12.0, 64.0)  # CSS px
CONTRAST = 1.5  # of the darkest or lightest dot of a word's ink against what it stands on: less is not meant to be read
INK = 0.005  # least share of a word's box that is ink
GAP = 300.0  # CSS px of nothing, from above, between what there is
FIRST_SCREEN = 450.0  # CSS px from above within which the picture begins on a phone, so that it is the largest thing there
PICTURE_WIDTH = 320.0  # least, CSS px
OVERLAP = 0.5  # of the smaller box of two


class ReaderError(Exception):
    """A reader does not get what the posts say; the text says what is missing."""


def check(page: Page, seen: dict[str, Any], mobile: bool) -> None:
    """Raises ReaderError."""
    _check_words(page, seen)
    _check_boxes(seen)
    screen = _luminance(seen["drawn"])
    scale = screen.shape[1] / seen["page"][0]
    ink = contrast(screen, _luminance(seen["wordless"]))
    for text in seen["texts"]:
        check_ink(text, ink, scale)
    _check_picture(page, seen, screen, scale, mobile)
    _check_gaps(seen)


def _check_words(page: Page, seen: dict[str, Any]) -> None:
    found = squeezed("".join(text["text"] for text in seen["texts"]))
    if found != page.text:
        at = next((i for i, (a, b) in enumerate(zip(found, page.text, strict=False)) if a != b), min(len(found), len(page.text)))
        raise ReaderError(f"the words are not the posts': {found[at : at + 40]!r} stands where {page.text[at : at + 40]!r} belongs")
    links = [(url, squeezed(text)) for url, text in seen["links"]]
    if links != [(url, squeezed(text)) for url, text in page.links]:
        raise ReaderError(f"the links are not the posts': {links[:8]}")


def _check_boxes(seen: dict[str, Any]) -> None:
    width, height = seen["page"]
    if width > seen["screen"][0] + 1:
        raise ReaderError(f"the page is {width} px wide on a screen of {seen['width']}")
    boxes: list[list[float]] = []
    for text in seen["texts"]:
        words = text["text"].strip()[:40]
        if not text["shown"] or not text["boxes"]:
            raise ReaderError(f"{words!r} is not shown")
        if not FONT_SIZES[0] <= text["size"] <= FONT_SIZES[1]:
            raise ReaderError(f"{words!r} has letters of {text['size']:g} px; {FONT_SIZES[0]:g} to {FONT_SIZES[1]:g} are allowed")
        for x, y, w, h in text["boxes"]:
            if w < 1 or h < 6 or x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
                raise ReaderError(f"{words!r} is off the page or has no size: {w:g} x {h:g} px at {x:g}, {y:g}")
        boxes += text["boxes"]
    boxes += [picture["box"] for picture in seen["pictures"]]
    if overlap(np.array(boxes)) > OVERLAP:
        raise ReaderError("words or pictures lie over one another")


def overlap(boxes: Array) -> float:
    """The largest share of a box that another one covers, of the smaller of the two; boxes are x, y, width, height."""
    x, y, w, h = boxes.T
    across = np.minimum.outer(x + w, x + w) - np.maximum.outer(x, x)
    down = np.minimum.outer(y + h, y + h) - np.maximum.outer(y, y)
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    np.fill_diagonal(shared, 0)
    return float((shared / np.maximum(np.minimum.outer(w * h, w * h), 1e-9)).max(initial=0))


def check_ink(text: dict[str, Any], ink: Array, scale: float) -> None:
    """Whether each box of a word differs, with ink and without."""
    for x, y, w, h in text["boxes"]:
        part = _part(ink, [x, y, w, h], scale)
        if not part.size or part.max() < CONTRAST or (part >= min(CONTRAST, part.max())).mean() < INK:
            raise ReaderError(f"{text['text'].strip()[:40]!r} cannot be seen: contrast {part.max(initial=1):.2f} to 1")


def _check_picture(page: Page, seen: dict[str, Any], screen: Array, scale: float, mobile: bool) -> None:
    names = [picture["file"] for picture in seen["pictures"]]
    if len(names) != bool(page.picture):
        raise ReaderError(f"the page has the pictures {names}, and the post {page.picture or 'none'}")
    if not names:
        return
    (picture,) = seen["pictures"]
    x, y, w, h = picture["box"]
    sizes = PICTURES[page.picture]
    pixels = next((width for width in sizes if picture["file"] == f"assets/{page.picture}-{width}.jpg"), 0)
    if not picture["loaded"] or not pixels or picture["alt"] != page.alt:
        raise ReaderError(f"the picture is not the post's, or has not its alt text: {picture}")
    if w < min(PICTURE_WIDTH, 0.75 * seen["screen"][0]) or x < 0 or x + w > seen["screen"][0] + 1:
        raise ReaderError(f"the picture is {w:g} px wide; {PICTURE_WIDTH:g} are the least, within the screen")
    if abs(w / h / (pixels / sizes[pixels]) - 1) > 0.03:
        raise ReaderError(f"the picture is distorted: {w:g} x {h:g} px")
    if w > pixels * 1.05:
        raise ReaderError(f"the picture is blurred: a file of {pixels} px is drawn {w:g} px wide")
    if mobile and y > FIRST_SCREEN:
        raise ReaderError(f"the picture begins {y:g} px from above, below the first screen")
    changed = contrast(_part(screen, picture["box"], scale), _part(_luminance(seen["unpictured"]), picture["box"], scale))
    if changed.size == 0 or (changed > 1.05).mean() < 0.5:
        raise ReaderError("the picture cannot be seen")


def _check_gaps(seen: dict[str, Any]) -> None:
    boxes = [box for text in seen["texts"] for box in text["boxes"]] + [picture["box"] for picture in seen["pictures"]]
    spans = sorted((y, y + h) for _, y, _, h in boxes)
    height = seen["page"][1]
    ends = [(height, height)] if height > seen["screen"][1] else []  # a short page is as high as the screen
    if (gap := largest_gap([*spans, *ends])) > GAP:
        raise ReaderError(f"{gap:g} px of the page have nothing in them; at most {GAP:g} are allowed")


def largest_gap(spans: list[tuple[float, float]]) -> float:
    """Between 0 and the last of sorted spans."""
    end = widest = 0.0
    for top, bottom in spans:
        widest = max(widest, top - end)
        end = max(end, bottom)
    return widest


def contrast(one: Array, other: Array) -> Array:
    """WCAG's contrast ratio of two pictures of relative luminance, dot by dot."""
    rows, columns = (min(a, b) for a, b in zip(one.shape, other.shape, strict=True))
    one, other = one[:rows, :columns], other[:rows, :columns]
    return (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)


def luminance(rgb: Array) -> Array:
    """WCAG's relative luminance of 8-bit sRGB."""
    steps = np.arange(256) / 255
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    return linear[rgb[..., :3]] @ np.array([0.2126, 0.7152, 0.0722])


def _luminance(png: str) -> Array:
    return luminance(np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")))


def _part(picture: Array, box: list[float], scale: float) -> Array:
    x, y, w, h = (round(value * scale) for value in box)
    return picture[max(y, 0) : y + h, max(x, 0) : x + w]
