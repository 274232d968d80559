"""A text whose lines can be found: exactly, with white space forgiven, as a part of a line, or the most similar ones.

Lines are interned as characters of one string for each way of looking, so that every search is `str.find`, whose worst case is
linear; similarity is that of bags of words, not of characters, and of a dozen candidates.
"""

import re
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from heapq import nlargest
from itertools import accumulate

from autoresearch_mcp.loop.diffs import content
from autoresearch_mcp.text import split_lines

MOST_FOUND = 9  # places; more are not told apart, only called many
WIDTH = 200  # characters of a line that are compared or shown
_WORD = re.compile(r"\w+|[^\w\s]")
_INSIDE = re.compile(r"\w\0\w|\d\0\.\d|\d\.\0\d")  # of a word or number, with a mark where a stretch begins or ends


def exact(line: str) -> str:
    return line


def no_trailing(line: str) -> str:
    return line.rstrip()


def collapsed(line: str) -> str:
    return " ".join(line.split())


View = Callable[[str], str]


class Lines:
    """A text, and what finds lines in it."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.lines = split_lines(text)
        self.content = [content(line) for line in self.lines]
        self.newline = "\r\n" if text.count("\r\n") * 2 > len(self.lines) else "\n"
        self.final = text.endswith("\n") or not text
        self._strings: dict[View, tuple[dict[str, str], str]] = {}
        self._joined = self._collapsed = ""
        self._line_starts: list[int] = []
        self._collapsed_starts: list[int] = []

    def _string(self, view: View) -> tuple[dict[str, str], str]:
        """A character for each different line, and the file as a string of them."""
        if view not in self._strings:
            characters: dict[str, str] = {}
            shown = [characters.setdefault(view(line), chr(len(characters))) for line in self.content]
            self._strings[view] = characters, "".join(shown)
        return self._strings[view]

    def find(self, old: list[str], view: View, start: int = 0) -> list[int]:
        """The first few indices from `start` on where these lines stand."""
        if not old or len(old) > len(self.content):
            return []
        characters, string = self._string(view)
        found = [characters.get(view(line), "") for line in old]
        if "" in found:
            return []
        return _occurrences(string, "".join(found), start)

    def stands_at(self, old: list[str], at: int) -> bool:
        return 0 <= at <= len(self.content) - len(old) and self.content[at : at + len(old)] == old

    def has(self, line: str) -> bool:
        """Whether a line stands anywhere, white space aside."""
        return collapsed(line) in self._string(collapsed)[0]

    def find_start(self, beginning: str, start: int) -> list[int]:
        """Indices of the first few lines from `start` on that are this, or else begin with it and not within a word, white space
        aside."""
        if equal := self.find([beginning], collapsed, start):
            return equal
        if not self._collapsed_starts:
            shown = [collapsed(line) for line in self.content]
            self._collapsed = "\n" + "\n".join(shown)
            self._collapsed_starts = _starts(shown)
        if start >= len(self.content):
            return []
        wanted = "\n" + collapsed(beginning)
        places = _occurrences(self._collapsed, wanted, self._collapsed_starts[start], whole=_is_word(wanted[-1]))
        return [bisect_right(self._collapsed_starts, at) - 1 for at in places]

    @cached_property
    def _depths(self) -> list[int]:
        """How far each line is indented; a blank one as deep as can be."""
        return [len(line) - len(line.lstrip()) if line.strip() else sys.maxsize for line in self.content]

    def block_end(self, at: int) -> int:
        """Index behind the lines that are indented deeper than line `at`; what a line like `def f():` encloses."""
        depths, own = self._depths, self._depths[at]
        return next((end for end in range(at + 1, len(depths)) if depths[end] <= own), len(depths))

    def find_text(self, old: str) -> list[tuple[int, int]]:
        """The first few (start, end) of a text in the whole file, its line ends read as LF."""
        if not self._line_starts:
            self._joined = "\n".join(self.content) + ("\n" if self.content and self.final else "")
            self._line_starts = _starts(self.content)
        return [(at, at + len(old)) for at in _occurrences(self._joined, old, 0)] if old else []

    def around(self, start: int, end: int) -> tuple[int, int, str, str]:
        """Index of the line where a stretch of the text begins and of the one where it ends, and what else stands on them."""
        first, last = bisect_right(self._line_starts, start) - 1, bisect_right(self._line_starts, end) - 1
        rest = self.content[last][end - self._line_starts[last] :] if last < len(self.content) else ""
        return first, last, self.content[first][: start - self._line_starts[first]], rest

    def cuts_a_word(self, start: int, end: int) -> bool:
        """Whether a stretch of the text begins or ends inside a word or a number."""
        return any(_INSIDE.search(self._joined[max(0, at - 2) : at] + "\0" + self._joined[at : at + 2]) for at in (start, end))


def _starts(lines: list[str]) -> list[int]:
    """Where each line begins in the text that they make, and where it ends."""
    return list(accumulate((len(line) + 1 for line in lines), initial=0))


def _occurrences(text: str, part: str, start: int, whole: bool = False) -> list[int]:
    """Where the first few stand; of whole words only those that do not go on."""
    found: list[int] = []
    at = text.find(part, start)
    while at >= 0 and len(found) < MOST_FOUND:
        if not (whole and _is_word(text[at + len(part) : at + len(part) + 1])):
            found.append(at)
        at = text.find(part, at + 1)
    return found


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _words(line: str) -> Counter[str]:
    return Counter(_WORD.findall(line[:WIDTH]))


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """Share of words that two bags of them have in common, between 0 and 1."""
    return 2 * (one & other).total() / max(1, one.total() + other.total())


def _bag(lines: list[str]) -> Counter[str]:
    bag: Counter[str] = Counter()
    for line in lines:
        bag.update(_words(line))
    return bag


def nearest_window(old: list[str], lines: list[str]) -> int | None:
    """Index of the lines that share the most words with `old`; None where none share enough. Windows are ranked by words that
    stand in `old` at all, and the first dozen compared as bags of words."""
    wanted = _bag(old)
    scores = {line: sum(count for word, count in _words(line).items() if word in wanted) for line in set(lines)}
    sums = list(accumulate((scores[line] for line in lines), initial=0))
    size = min(len(old), len(lines))
    windows = range(len(lines) - size + 1)
    best, best_ratio = None, 0.4
    for at in nlargest(12, windows, key=lambda at: sums[at + size] - sums[at]):
        ratio = _likeness(wanted, _bag(lines[at : at + size]))
        if ratio > best_ratio:
            best, best_ratio = at, ratio
    return best


def similar_lines(line: str, lines: list[str]) -> list[str]:
    """Up to three different lines that share half of their words with this one."""
    wanted = _words(line)
    ranked = nlargest(3, ((_likeness(wanted, _words(other)), other) for other in dict.fromkeys(lines)))
    return [other[:WIDTH].strip() for likeness, other in ranked if likeness >= 0.5]
