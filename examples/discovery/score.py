"""Scores recommend.py: how diverse its lists are. The file is executed in a sandboxed child; here its lists are data.

The child is sent a reader's past books and returns ten others. Two children are asked for every reader, each in an order of its own
that is drawn anew each time; where they differ, the file is refused: a list may depend on the reader's past and on nothing else,
neither on who was asked before nor on chance. Held-out books are read by this process alone.
"""

import csv
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from autoresearch_mcp.evaluate.child import ChildError, Function, answer

COUNT = 10  # books a list has
ANSWER_SECONDS, ALL_SECONDS = 15.0, 50.0  # of one list, the first with the start of the child; of all lists of a child

Labels = dict[str, frozenset[str]]


class NoList(ChildError):
    """What a child gave cannot count as a list."""

    def __init__(self, reason: str):
        super().__init__(f"recommend() gave {reason}", "refused")


@dataclass(frozen=True)
class Reader:
    past: list[str]
    held_out: frozenset[str]


def read_labels(path: Path) -> Labels:
    """What a book is about, by its id: genre, setting and subjects."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: frozenset([row["genre"], row["setting"], *row["subjects"].split()]) for row in csv.DictReader(file)}


def read_readers(path: Path) -> dict[str, list[Reader]]:
    """The readers of each group."""
    groups: dict[str, list[Reader]] = {"scored": [], "holdout": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        group, past, held_out = (part.split() for part in line.split("|"))
        groups[group[0]].append(Reader(past, frozenset(held_out)))
    return groups


def bestsellers(path: Path) -> list[str]:
    """Books by how many of the community have read them."""
    counts = Counter(book for line in path.read_text(encoding="utf-8").splitlines() for book in line.split())
    return sorted(counts, key=lambda book: (-counts[book], book))


# --- figures ---


def distance(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard's, of two books' labels: 0 for the same, 1 where none is shared."""
    return 1 - len(one & other) / len(one | other)


def intra_list_distance(books: Sequence[str], labels: Labels) -> float:
    """The mean distance of two books of one list."""
    pairs = [distance(labels[one], labels[other]) for one, other in combinations(books, 2)]
    return sum(pairs) / len(pairs)


def coverage(lists: Sequence[Sequence[str]], labels: Labels) -> float:
    """The share of the catalogue that is in any list."""
    return len({book for books in lists for book in books}) / len(labels)


def diversity(lists: Sequence[Sequence[str]], labels: Labels) -> float:
    """The harmonic mean, in per cent, of the mean intra-list distance and the coverage: high only where both are."""
    within = sum(intra_list_distance(books, labels) for books in lists) / len(lists)
    between = coverage(lists, labels)
    return 100 * 2 * within * between / (within + between)


def ndcg(books: Sequence[str], held_out: Collection[str]) -> float:
    """Normalized discounted cumulative gain of a list; the gain of a held-out book is 1."""
    gain = sum(1 / math.log2(place + 1) for place, book in enumerate(books, 1) if book in held_out)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(len(books), len(held_out)) + 1))


def mean_ndcg(lists: Sequence[Sequence[str]], readers: Sequence[Reader]) -> float:
    return sum(ndcg(books, reader.held_out) for books, reader in zip(lists, readers, strict=True)) / len(readers)


def precision(lists: Sequence[Sequence[str]], readers: Sequence[Reader]) -> float:
    """The share of the recommended books that were held out; every place counts the same."""
    hits = [book in reader.held_out for books, reader in zip(lists, readers, strict=True) for book in books]
    return sum(hits) / len(hits)


# --- lists ---


def checked(value: Any, past: Collection[str], labels: Labels) -> list[str]:
    """The list that a child gave. Raises NoList."""
    if not isinstance(value, list) or len(value) != COUNT:
        what = f"{len(value)} items" if isinstance(value, list) else "no list"
        raise NoList(f"{what}; it must give a list of {COUNT} ids")
    if not all(isinstance(book, str) and book in labels for book in value):
        raise NoList("what is no id in catalogue.csv")
    if len(set(value)) < COUNT:
        raise NoList("a book twice in one list")
    if not set(value).isdisjoint(past):
        raise NoList("a book that the reader has read")
    return value


def asked(recommend: Function, readers: Sequence[Reader], labels: Labels) -> list[list[str]]:
    """A child's list for each of the readers. It is asked in an order that cannot be guessed, so that none tells who is meant.
    Raises ChildError.
    """
    order = random.SystemRandom().sample(range(len(readers)), len(readers))
    deadline = time.monotonic() + ALL_SECONDS
    lists: dict[int, list[str]] = {}
    for index in order:
        if time.monotonic() > deadline:
            raise ChildError(f"{len(readers)} lists took more than {ALL_SECONDS:.0f} s", "timeout")
        lists[index] = checked(recommend(readers[index].past, COUNT), readers[index].past, labels)
    return [lists[index] for index in range(len(readers))]


def lists_for(readers: Sequence[Reader], labels: Labels) -> list[list[str]]:
    """The list of each reader, on which two children agree. They end with this process. Raises ChildError."""
    one, other = (Function("recommend.py", "recommend", ANSWER_SECONDS) for _ in range(2))
    lists = asked(one, readers, labels)
    if lists != asked(other, readers, labels):
        raise NoList("two lists for one reader; a list may depend on nothing but the arguments")
    return lists


def main(data: Path) -> None:
    labels, groups = read_labels(Path("catalogue.csv")), read_readers(data / "readers.txt")
    scored, holdout = groups["scored"], groups["holdout"]
    try:
        lists = lists_for([*scored, *holdout], labels)
    except ChildError as error:
        reason = str(error).partition(":")[0]  # behind it may stand what the child said, which has seen the readers' pasts
        return answer(refused=reason, failure=error.failure)
    ours, sealed = lists[: len(scored)], lists[len(scored) :]

    # What only the sealed readers can tell: whether a file is relevant to those that it was not chosen by.
    books = bestsellers(Path("community.txt"))
    plain = [[book for book in books if book not in reader.past][:COUNT] for reader in holdout]
    relevance = min(figure(sealed, holdout) / figure(plain, holdout) for figure in (mean_ndcg, precision))
    answer(
        score=diversity(ours, labels),
        holdout=diversity(sealed, labels) * min(1.0, relevance),
        details={
            "distance": sum(intra_list_distance(books, labels) for books in ours) / len(ours),
            "coverage": coverage(ours, labels),
            # In few digits: as a sum of many readers' exact gains it would tell a patient file whose guess was right.
            "ndcg": round(mean_ndcg(ours, scored), 3),
            "precision": round(precision(ours, scored), 3),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
