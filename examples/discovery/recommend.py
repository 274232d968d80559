"""Recommends books to a reader. Edit this file; score.py calls `recommend`, and nothing else of it."""

from collections import Counter
from pathlib import Path

COMMUNITY = [line.split() for line in Path("community.txt").read_text(encoding="utf-8").splitlines()]
READERS_OF = Counter(book for read in COMMUNITY for book in read)
BESTSELLERS = sorted(READERS_OF, key=lambda book: (-READERS_OF[book], book))


def recommend(history: list[str], count: int) -> list[str]:
    """`count` different books, the best first, for a reader who has read those in `history`, none of which may be among them."""
    return [book for book in BESTSELLERS if book not in history][:count]


if __name__ == "__main__":  # the run; what is printed here you can read, which is not so where score.py asks
    for read in COMMUNITY[:20]:
        books = recommend(read[:10], 10)
        assert len({*books} - {*read[:10]}) == 10
