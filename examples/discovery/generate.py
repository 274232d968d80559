"""The model that the catalogue and the readers were drawn from; README.md tells it in words.

    python generate.py FOLDER    # writes catalogue.csv, community.txt and readers.txt as they are carried

Nothing but `random.Random.random` is drawn on, whose sequence Python promises to keep, so that every machine gets the same files.
"""

import csv
import io
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path

CATALOGUE_SEED, COMMUNITY_SEED, READERS_SEED = 1874, 1899, 1912  # any three would do
BOOKS, AUTHORS, STYLES = 600, 120, 6
COMMUNITY, SCORED, HOLDOUT = 400, 100, 100  # readers
HELD_OUT = 12  # books of each scored or holdout reader
POPULARITY = 0.9  # exponent of a book's fame over its rank
NOISE = 0.15  # of all readings, those that follow fame alone


def words(text: str) -> list[str]:
    return text.split()


SUBJECTS = {
    "adventure": "islands shipwrecks treasure pirates explorers deserts captivity survival",
    "mystery": "detectives poison inheritance blackmail impostors trials burglary alibis",
    "romance": "courtship marriage rivals letters elopement balls widows misunderstanding",
    "history": "monarchs revolutions sieges empires rebellions diplomacy chronicles dynasties",
    "science": "astronomy chemistry geology botany electricity medicine evolution instruments",
    "philosophy": "ethics freedom reason virtue solitude education faith society",
    "travel": "railways mountains pilgrimages rivers caravans inns customs maps",
    "fantasy": "giants enchantments dragons prophecies talking-animals quests curses fairies",
    "horror": "ghosts vampires asylums ruins graveyards doubles nightmares seances",
    "comedy": "servants disguises bachelors clubs satire holidays relatives mishaps",
    "war": "cavalry soldiers spies prisoners battles deserters hospitals armistice",
    "nature": "birds gardens seasons fishing forests insects farming weather",
}
SETTINGS = words("London Paris Russia India America Scotland Italy Egypt")
ADJECTIVES = words("""Amber Bitter Broken Burning Crooked Distant Emerald Faithful Forgotten Frozen Gilded Golden Hidden Hollow Idle
Last Lonely Lost Painted Pale Quiet Restless Scarlet Second Silent Silver Sleeping Stolen Sunken Unwilling Velvet Wandering
Western White Wicked Winter""")
NOUNS = words("""Anchor Bell Bridge Candle Captain Compass Cottage Crown Daughter Door Falcon Garden Harbour Heir House Journal Key
Lantern Ledger Mask Mill Mirror Orchard Parish Physician Portrait Ring River Road Rose Sailor Shore Stranger Summer Tower
Traveller Tutor Valley Window Wolf""")
NAMES = words("""Ada Agnes Albert Amelia Arthur Beatrice Charles Clara Conrad Edith Edmund Eleanor Ernest Esther Florence Frederick
George Harriet Henry Ida Isabel James Josephine Julian Lydia Margaret Martin Matilda Oscar Percy Rosa Rupert Sylvia Theodore
Victor Winifred""")
SURNAMES = words("""Aldous Ambrose Barrow Beckwith Carrow Chilton Corbet Dacre Denholm Ellery Fairfax Farrow Garrick Gaunt Hallam
Harwood Iremonger Jessop Kestrel Lacey Lyndon Marchmont Merrow Nesbit Oakes Pembury Penrose Quill Ravens Redgrave Selwyn
Sterne Tarrant Thorne Underhill Vane Wainwright Westbrook Wycliffe Yardley""")
COLUMNS = ("id", "title", "author", "year", "genre", "setting", "subjects")


@dataclass(frozen=True)
class Book:
    id: str
    title: str
    author: str
    year: int
    genre: str
    setting: str
    subjects: tuple[str, ...]
    style: int
    """The author's manner: readers care for it, and the catalogue does not tell it."""
    fame: float


def draw(rng: random.Random, weights: list[float]) -> int:
    """An index with a probability in proportion to its weight."""
    at = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        at -= weight
        if at < 0:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)


def several(rng: random.Random, weights: list[float], count: int) -> list[int]:
    """Different indices, each drawn from those that are left."""
    weights, found = list(weights), []
    for _ in range(count):
        found.append(draw(rng, weights))
        weights[found[-1]] = 0.0
    return found


def between(rng: random.Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def one_of(rng: random.Random, values: list[str]) -> str:
    return values[between(rng, 0, len(values) - 1)]


def make_catalogue(seed: int = CATALOGUE_SEED) -> list[Book]:
    rng = random.Random(seed)
    genres = list(SUBJECTS)
    everything = [subject for pool in SUBJECTS.values() for subject in pool.split()]
    shares = [1 / (rank + 4) for rank in range(len(genres))]
    authors: dict[str, tuple[str, int, str, int]] = {}
    while len(authors) < AUTHORS:
        name = f"{one_of(rng, NAMES)} {one_of(rng, SURNAMES)}"
        if name not in authors:
            genre, setting = genres[draw(rng, shares)], one_of(rng, SETTINGS)
            authors[name] = (genre, between(rng, 0, STYLES - 1), setting, between(rng, 1790, 1920))
    ranks = several(rng, [1.0] * BOOKS, BOOKS)
    books: list[Book] = []
    titles: set[str] = set()
    while len(books) < BOOKS:
        number = len(books)
        author = list(authors)[number % AUTHORS]
        genre, style, setting, born = authors[author]
        title = f"The {one_of(rng, ADJECTIVES)} {one_of(rng, NOUNS)}"
        if title in titles:
            continue
        titles.add(title)
        pool = SUBJECTS[genre].split()
        subjects = [pool[index] for index in several(rng, [1 / (rank + 2) for rank in range(len(pool))], 3)]
        subjects.append(one_of(rng, [subject for subject in everything if subject not in subjects]))
        books.append(
            Book(
                id=f"b{number + 1:03d}",
                title=title,
                author=author,
                year=born + between(rng, 22, 60),
                genre=genre,
                setting=setting if rng.random() < 0.6 else one_of(rng, SETTINGS),
                subjects=tuple(subjects),
                style=style,
                fame=(ranks[number] + 8) ** -POPULARITY,
            )
        )
    return books


def make_reader(rng: random.Random, books: list[Book], count: int) -> list[str]:
    """The books that one reader reads, in no order that says anything."""
    genres = list(SUBJECTS)
    counts = [sum(book.genre == genre for book in books) for genre in genres]
    first, second = (genres[index] for index in several(rng, [float(count) for count in counts], 2))
    pool = [*SUBJECTS[first].split(), *SUBJECTS[second].split()]
    liked = {pool[index] for index in several(rng, [1.0] * len(pool), 4)}
    style, setting = between(rng, 0, STYLES - 1), one_of(rng, SETTINGS)

    def taste(book: Book) -> float:
        genre = 1.8 if book.genre == first else 1.0 if book.genre == second else 0.0
        return genre + 0.8 * len(liked.intersection(book.subjects)) + 1.4 * (book.style == style) + 0.5 * (book.setting == setting)

    by_taste = [book.fame * math.exp(taste(book)) for book in books]
    by_fame = [book.fame for book in books]
    read: list[int] = []
    for _ in range(count):
        read.append(draw(rng, by_fame if rng.random() < NOISE else by_taste))
        by_taste[read[-1]] = by_fame[read[-1]] = 0.0
    return [books[read[index]].id for index in several(rng, [1.0] * count, count)]


def make_community(books: list[Book], seed: int = COMMUNITY_SEED) -> list[list[str]]:
    """All that each of these readers has read."""
    rng = random.Random(seed)
    return [make_reader(rng, books, between(rng, 12, 36)) for _ in range(COMMUNITY)]


def make_readers(books: list[Book], seed: int = READERS_SEED) -> list[tuple[str, list[str], list[str]]]:
    """Group, past and held-out books of each reader that recommendations are made for. No two have the same past."""
    rng = random.Random(seed)
    readers: list[tuple[str, list[str], list[str]]] = []
    while len(readers) < SCORED + HOLDOUT:
        read = make_reader(rng, books, between(rng, 8, 16) + HELD_OUT)
        past, held_out = read[HELD_OUT:], read[:HELD_OUT]
        if all(set(past) != set(other) for _, other, _ in readers):
            readers.append(("scored" if len(readers) < SCORED else "holdout", past, held_out))
    return readers


def catalogue_text(books: list[Book]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for book in books:
        writer.writerow([book.id, book.title, book.author, book.year, book.genre, book.setting, " ".join(book.subjects)])
    return file.getvalue()


def community_text(community: list[list[str]]) -> str:
    return "".join(" ".join(read) + "\n" for read in community)


def readers_text(readers: list[tuple[str, list[str], list[str]]]) -> str:
    return "".join(f"{group} | {' '.join(past)} | {' '.join(held_out)}\n" for group, past, held_out in readers)


if __name__ == "__main__":
    folder, books = Path(sys.argv[1]), make_catalogue()
    (folder / "catalogue.csv").write_text(catalogue_text(books), encoding="utf-8")
    (folder / "community.txt").write_text(community_text(make_community(books)), encoding="utf-8")
    (folder / "readers.txt").write_text(readers_text(make_readers(books)), encoding="utf-8")
