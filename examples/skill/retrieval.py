"""Which skill a request is given to: Okapi BM25 over the descriptions of all that are installed, and how often that is right."""

import math
import re
from collections import Counter

K1, B = 1.5, 0.75  # as usual; Robertson and Zaragoza, The Probabilistic Relevance Framework (2009)
THRESHOLD = 1.6  # a request that no description scores as much for is given to no skill
FUNCTION_SHARE = 0.25  # of the different words of a description, this many are function words; of padded keywords, half as many
FUNCTION_COUNT = 8  # and so many of them there are at least
REPEATS = 3  # how often a word may stand in a description
LONGEST_LIST = 12  # words in a row with no function word among them
WORDS = """
a about after all also an and any are as at be been before but by can could did do does each every for from had has have he her
his how i if in into is it its just keep like make me more my need no not of on one only or other our out over please put she
should so some such than that the their them then there these they this those through to too up use user was we were what when
where which while who whose why will with without would you your
"""
FUNCTION_WORDS = frozenset(WORDS.split())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def stem(word: str) -> str:
    """Without the endings of plural, -ed, -ing, and a last e."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] in "bdgmnprt":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def terms(text: str) -> list[str]:
    return [stem(word) for word in words(text) if word not in FUNCTION_WORDS and len(word) > 1]


class Index:
    """The installed skills by name, each found by its name and description."""

    def __init__(self, skills: dict[str, str]):
        self._documents = {name: Counter(terms(f"{name} {text}")) for name, text in skills.items()}
        self._length = {name: sum(counts.values()) for name, counts in self._documents.items()}
        self._mean = sum(self._length.values()) / len(skills)
        found = Counter(term for counts in self._documents.values() for term in counts)
        self._idf = {term: math.log(1 + (len(skills) - n + 0.5) / (n + 0.5)) for term, n in found.items()}

    def scores(self, request: str) -> dict[str, float]:
        asked = sorted(set(terms(request)))  # in one order, so that sums are the same to the last digit
        found: dict[str, float] = {}
        for name, counts in self._documents.items():
            norm = K1 * (1 - B + B * self._length[name] / self._mean)
            found[name] = sum(self._idf[term] * counts[term] * (K1 + 1) / (counts[term] + norm) for term in asked if counts[term])
        return found

    def triggers(self, name: str, request: str) -> bool:
        """Whether the request is given to this skill: it scores enough, and more than any other."""
        scores = self.scores(request)
        return scores[name] >= THRESHOLD and all(scores[name] > score for other, score in scores.items() if other != name)


class Confusion:
    """Of requests that a skill is for, and that it is given."""

    def __init__(self, pairs: list[tuple[bool, bool]]):
        """Pairs: is it for the skill, is it given to it."""
        counts = Counter(pairs)
        self.tp, self.fn = counts[True, True], counts[True, False]
        self.fp, self.tn = counts[False, True], counts[False, False]

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp else 0.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp else 0.0

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient: 1 for all right, 0 for whoever takes everything, nothing or by chance."""
        product = (self.tp + self.fp) * (self.tp + self.fn) * (self.tn + self.fp) * (self.tn + self.fn)
        return (self.tp * self.tn - self.fp * self.fn) / math.sqrt(product) if product else 0.0


def prose(description: str) -> float:
    """From 1, written for a reader, to 0, a pile of keywords: with many function words, little said often, no endless list."""
    said = words(description)
    if not said:
        return 0.0
    function = len(FUNCTION_WORDS & {*said})
    enough = min(1.0, function / len({*said}) / FUNCTION_SHARE) * min(1.0, function / FUNCTION_COUNT)
    repeated = sum(max(0, count - REPEATS) for count in Counter(terms(description)).values()) / len(said)
    endless, run = 0, 0
    for word in said:
        run = 0 if word in FUNCTION_WORDS else run + 1
        endless += run > LONGEST_LIST
    return enough * max(0.0, 1 - 4 * repeated) * max(0.0, 1 - 2 * endless / len(said))
