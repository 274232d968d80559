"""What differs between two texts, line by line, in bounded time.

Small texts get difflib's answer. Its matcher is quadratic at best (6,000 equal lines took it 8.7 s), so where that would cost more
than WORK comparisons, the lines that stand once on both sides are taken as fixed points and only the gaps between them are
compared (Bram Cohen's patience diff). The price: where even that is too much, because almost every line is a repetition, a whole
gap reads as replaced. Such a diff is longer than need be, but never wrong.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from autoresearch_mcp.text import split_lines

WORK = 4_000_000  # comparisons of lines; about 0.4 s on one slow core
DEPTH = 12  # rounds of fixed points; texts that people write need two
CONTEXT = 3

Run = tuple[int, int, int]
"""(index in the old lines, index in the new ones, number of equal lines)."""
Change = tuple[int, int, int, int]
"""(start, end) of what goes in the old lines, then of what comes in the new ones."""
Range = tuple[int, int]

# What would move the cursor, end a line for some readers, turn the direction of text, or fit in no UTF-8.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
_PICTURES = {
    code: chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"<U+{code:04X}>"
    for code in (*range(0xA0), *range(0x2000, 0x2070), *range(0xD800, 0xE000), 0xFEFF)
    if _INVISIBLE.match(chr(code))
}


@dataclass(frozen=True)
class Diff:
    """A unified diff, and the lines it is made of, without sign and line end. All empty where the texts are equal."""

    text: str
    """As it is shown: control characters in it are pictures or code points, such as ␍ or <U+2028>."""
    added: tuple[str, ...]
    removed: tuple[str, ...]


def unified_diff(old: str, new: str, path: str) -> Diff:
    """Diff of the file `path` from `old` to `new`, with three lines of context."""
    before, after = split_lines(old), split_lines(new)
    changes = changes_between(before, after)
    crlf = old.count("\r\n") + new.count("\r\n")
    mixed = 0 < crlf < old.count("\n") + new.count("\n")  # then a CR before the line end is part of what is shown
    shown: list[str] = []

    def show(sign: str, lines: list[str]) -> None:
        shown.extend([sign + (line.removesuffix("\n") if mixed else content(line)) for line in lines])
        if lines and not lines[-1].endswith("\n"):
            shown.append("\\ No newline at end of file")

    for group in _groups(changes):
        (a, b), (c, d) = _with_context(group, len(before))
        shown.append(f"@@ -{_range(a, b)} +{_range(c, d)} @@")
        for i, j, k, m in group:
            show(" ", before[a:i])
            show("-", before[i:j])
            show("+", after[k:m])
            a = j
        show(" ", before[a:b])
    if not shown:
        return Diff("", (), ())
    text = "\n".join([f"--- a/{path}", f"+++ b/{path}", *shown, ""])
    return Diff(
        visible(text),
        tuple(content(line) for _, _, k, m in changes for line in after[k:m]),
        tuple(content(line) for i, j, _, _ in changes for line in before[i:j]),
    )


def content(line: str) -> str:
    """A line without its end."""
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def matching(old: Sequence[Any], new: Sequence[Any]) -> list[Run]:
    """Runs of equal lines (or whatever hashable stands for one), in order, that a change from old to new can leave alone."""
    work = WORK / max(1, len(old) + len(new))
    return list(_matching(old, new, (0, len(old)), (0, len(new)), work, DEPTH))


def equal_lines(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, int]]:
    """The same runs, line by line: (index in old, index in new)."""
    return [(i + n, j + n) for i, j, size in matching(old, new) for n in range(size)]


def _matching(old: Sequence[Any], new: Sequence[Any], a: Range, b: Range, work: float, depth: int) -> Iterator[Run]:
    """`work` is what each line may cost, so that a gap gets its share of the whole."""
    (low, high), (new_low, new_high) = a, b
    while low < high and new_low < new_high and old[low] == new[new_low]:
        low, new_low = low + 1, new_low + 1
    if low > a[0]:
        yield a[0], b[0], low - a[0]
    while low < high and new_low < new_high and old[high - 1] == new[new_high - 1]:
        high, new_high = high - 1, new_high - 1
    if low < high and new_low < new_high:
        yield from _matching_middle(old, new, (low, high), (new_low, new_high), work, depth)
    if high < a[1]:
        yield high, new_high, a[1] - high


def _matching_middle(old: Sequence[Any], new: Sequence[Any], a: Range, b: Range, work: float, depth: int) -> Iterator[Run]:
    ours, theirs = old[slice(*a)], new[slice(*b)]
    counts = Counter(theirs)
    pairs = sum(counts[line] for line in ours)
    if (len(ours) + pairs) * min(len(ours), len(theirs), pairs) <= work * (len(ours) + len(theirs)):
        for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
            if block.size:
                yield a[0] + block.a, b[0] + block.b, block.size
    elif depth:
        fixed = [(a[0] + i, b[0] + j) for i, j in _fixed_points(ours, theirs, counts)]
        for (i, j), (next_i, next_j) in pairwise([(a[0] - 1, b[0] - 1), *fixed, (a[1], b[1])]):
            if i >= a[0]:
                yield i, j, 1
            if fixed and i + 1 < next_i and j + 1 < next_j:
                yield from _matching(old, new, (i + 1, next_i), (j + 1, next_j), work, depth - 1)


def _fixed_points(ours: Sequence[Any], theirs: Sequence[Any], counts: Counter[Any]) -> list[tuple[int, int]]:
    """The longest rising chain of lines that stand once on both sides."""
    own = Counter(ours)
    place = {line: j for j, line in enumerate(theirs) if counts[line] == 1}
    pairs = [(i, place[line]) for i, line in enumerate(ours) if own[line] == 1 and line in place]
    ends: list[int] = []  # ends[n]: the smallest new index that a chain of n + 1 pairs can end with
    tops: list[int] = []  # the pair that does
    before: list[int] = []
    for index, (_, j) in enumerate(pairs):
        at = bisect_left(ends, j)
        before.append(tops[at - 1] if at else -1)
        ends[at : at + 1] = [j]
        tops[at : at + 1] = [index]
    chain: list[tuple[int, int]] = []
    index = tops[-1] if tops else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def changes_between(old: Sequence[Any], new: Sequence[Any]) -> list[Change]:
    """What is left between the runs that match, in order."""
    changes: list[Change] = []
    i = k = 0
    for a, b, size in [*matching(old, new), (len(old), len(new), 0)]:
        if i < a or k < b:
            changes.append((i, a, k, b))
        i, k = a + size, b + size
    return changes


def _groups(changes: list[Change]) -> Iterator[list[Change]]:
    """Changes whose contexts touch share a hunk."""
    group: list[Change] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _with_context(group: list[Change], old_length: int) -> tuple[Range, Range]:
    above = min(CONTEXT, group[0][0])
    below = min(CONTEXT, old_length - group[-1][1])
    return (group[0][0] - above, group[-1][1] + below), (group[0][2] - above, group[-1][3] + below)


def _range(start: int, end: int) -> str:
    """As diff writes it: an empty range is named by the line before it, a length of one is left out."""
    size = end - start
    return f"{start + 1}" if size == 1 else f"{start + (size > 0)},{size}"


def visible(text: str) -> str:
    """Text whose control characters, but tab and line feed, and halves of characters are pictures (␍) or code points (<U+2028>)."""
    return text.translate(_PICTURES) if _INVISIBLE.search(text) else text
