"""Which descriptions say nearly the same: an index over words, so that a night of twenty thousand is searched in a moment. Pure.

Two descriptions are near when they have the same words, or the same numbers in the same order and at least SAME of their words in
sequence. Numbers tell ideas apart: "rate 0.1" and "rate 0.2" are two. At most CANDIDATES earlier ones are compared, so a near twin
among thousands of half-twins may go unseen; and of each the first COMPARED words, for the time grows with their square and more:
240 words took a list of 26 half a minute. What was found is kept, since earlier descriptions never change.
"""

import math
import re
from difflib import SequenceMatcher

SAME = 0.85
CANDIDATES = 200
COMPARED = 40

_WORD = re.compile(r"[a-z0-9.]+")


class Descriptions:
    def __init__(self) -> None:
        self._words: dict[int, tuple[str, ...]] = {}
        """The first COMPARED words of each description."""
        self._numbers: dict[int, tuple[str, ...]] = {}
        """All words of it that begin with a digit."""
        self._first: dict[frozenset[str], int] = {}
        """The first description that has these words, all of them counted."""
        self._first_same: dict[int, int] = {}
        self._having: dict[str, list[int]] = {}
        """Numbers of the descriptions that have a word, in order."""
        self._found: dict[int, int | None] = {}
        self._read: list[tuple[int, str]] = []
        """What was added and is not indexed yet: most sessions never ask."""

    def add(self, number: int, text: str) -> None:
        self._read.append((number, text))

    def index(self) -> None:
        """Takes what was added into the index, so that the next question is answered at once."""
        read, self._read = self._read, []
        for number, text in read:
            words = tuple(_WORD.findall(text.lower()))
            self._words[number] = words[:COMPARED]
            self._numbers[number] = tuple(word for word in words if word[0].isdigit())
            self._first_same[number] = self._first.setdefault(frozenset(words), number)
            for word in set(words[:COMPARED]):
                self._having.setdefault(word, []).append(number)

    def similar(self, number: int) -> int | None:
        """The first earlier description that is nearly the one of `number`."""
        self.index()
        if number not in self._found:
            self._found[number] = self._search(number)
        return self._found[number]

    def _search(self, number: int) -> int | None:
        words = self._words[number]
        same = self._first_same[number]
        if same < number:
            return same
        if len(words) <= 3:
            return None
        matcher = SequenceMatcher(None, autojunk=False)
        matcher.set_seq2(words)
        for earlier in self._candidates(words, number):
            if self._numbers[earlier] == self._numbers[number]:
                matcher.set_seq1(self._words[earlier])
                if matcher.real_quick_ratio() >= SAME and matcher.quick_ratio() >= SAME and matcher.ratio() >= SAME:
                    return earlier
        return None

    def _candidates(self, words: tuple[str, ...], before: int) -> list[int]:
        """Earlier ones that may be near: a near one lacks so few of the words that it must have one of the rarest."""
        distinct = sorted(set(words), key=lambda word: (len(self._having[word]), word))
        may_lack = math.floor(len(words) * (1 - SAME / (2 - SAME)))
        found: set[int] = set()
        for word in distinct[: may_lack + 1]:
            for number in self._having[word]:
                if number >= before or len(found) >= CANDIDATES:
                    break
                found.add(number)
        return sorted(found)
