"""The index finds what comparing every pair finds."""

import random
import re
import time
from difflib import SequenceMatcher

from hypothesis import example, given
from hypothesis import strategies as st

from autoresearch_mcp.record.descriptions import COMPARED, SAME, Descriptions


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
        alike = SequenceMatcher(None, theirs[:COMPARED], words[:COMPARED], autojunk=False).ratio() >= SAME
        if len(words) > 3 and numbers[0] == numbers[1] and alike:
            return earlier
    return None


@given(st.lists(st.lists(st.sampled_from("a b c d e f g h 1 2 0.5".split()), max_size=12).map(" ".join), max_size=25))  # noqa: SIM905
@example([f"{'a b c d ' * 15}{end}" for end in ("e f", "f e g", "e f 1", "e f 2", "h e")])
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


def test_a_list_of_long_descriptions_that_are_half_alike_is_answered_at_once():
    made, descriptions = random.Random(0), Descriptions()
    for number in range(400):
        descriptions.add(number, " ".join([f"w{number}", *(made.choice("ab") for _ in range(239))]))
    started = time.process_time()
    for number in range(374, 400):
        descriptions.similar(number)
    assert time.process_time() - started < 4  # took half a minute, now half a second
    started = time.process_time()
    for number in range(374, 400):
        descriptions.similar(number)
    assert time.process_time() - started < 0.01
