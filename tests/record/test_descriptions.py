"""The index finds what comparing every pair finds."""

import re
from difflib import SequenceMatcher

from hypothesis import given
from hypothesis import strategies as st

from autoresearch_mcp.record.descriptions import SAME, Descriptions


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9.]+", text.lower())


def by_every_pair(texts: list[str], number: int) -> int | None:
    """The definition, without an index."""
    words = words_of(texts[number])
    if any(set(words_of(texts[n])) == set(words) for n in range(number)):
        return next(n for n in range(number) if set(words_of(texts[n])) == set(words))
    for earlier in range(number):
        theirs = words_of(texts[earlier])
        numbers = [[word for word in them if word[0].isdigit()] for them in (words, theirs)]
        if len(words) > 3 and numbers[0] == numbers[1] and SequenceMatcher(None, theirs, words, autojunk=False).ratio() >= SAME:
            return earlier
    return None


@given(st.lists(st.lists(st.sampled_from("a b c d e f g h 1 2 0.5".split()), max_size=12).map(" ".join), max_size=25))  # noqa: SIM905
def test_the_index_finds_what_comparing_every_pair_finds(texts: list[str]):
    descriptions = Descriptions()
    for number, text in enumerate(texts):
        descriptions.add(number, text)
    assert [descriptions.similar(n) for n in range(len(texts))] == [by_every_pair(texts, n) for n in range(len(texts))]


def test_numbers_tell_ideas_apart_and_order_of_words_does_not():
    descriptions = Descriptions()
    for number, text in enumerate(("set the matrix rate to 0.1", "set the matrix rate to 0.2", "to 0.1 set the matrix rate")):
        descriptions.add(number, text)
    assert [descriptions.similar(number) for number in range(3)] == [None, None, 0]
