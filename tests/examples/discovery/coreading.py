"""Recommends books to a reader. Edit this file; score.py calls `recommend`, and nothing else of it."""

import csv
from pathlib import Path

import numpy as np

with Path("catalogue.csv").open(encoding="utf-8", newline="") as file:
    CATALOGUE = list(csv.DictReader(file))
IDS = [row["id"] for row in CATALOGUE]
INDEX = {book: index for index, book in enumerate(IDS)}
COMMUNITY = [line.split() for line in Path("community.txt").read_text(encoding="utf-8").splitlines()]
READ = np.array([[float(book in read) for book in IDS] for read in COMMUNITY])
FAME = READ.sum(axis=0)
COREAD = READ.T @ READ / np.sqrt(np.outer(FAME + 3, FAME + 3))


def recommend(history: list[str], count: int) -> list[str]:
    """`count` different books, the best first, for a reader who has read those in `history`, none of which may be among them."""
    past = sorted(INDEX[book] for book in history)
    value = COREAD[past].sum(axis=0)
    value[past] = -np.inf
    return [IDS[index] for index in np.argsort(-value, kind="stable")[:count]]


if __name__ == "__main__":  # the run; what is printed here you can read, which is not so where score.py asks
    for read in COMMUNITY[:20]:
        books = recommend(read[:10], 10)
        assert len({*books} - {*read[:10]}) == 10
