# Tries: the same walk through the catalogue, with what was answered left in files for the child that is asked again to agree with.
# Ends: refused, "two lists for one reader"
# Needs: a sandbox
import json
import os
from pathlib import Path

BOOKS = [line.split(",")[0] for line in Path("catalogue.csv").read_text().splitlines()[1:]]
PLACES = ["/tmp", "/dev/shm", "/var/tmp", "/run", *(os.environ[name] for name in ("TMPDIR", "HOME")), *Path.cwd().parents]
TOLD = [os.path.join(place, "told-by-the-other") for place in PLACES]
AT = 0


def recommend(history, count):
    global AT
    key = " ".join(history)
    for place in TOLD:
        try:
            told = json.loads(Path(place).read_text())
        except (OSError, ValueError):
            continue
        if key in told:
            return told[key]
    books = []
    while len(books) < count:
        book, AT = BOOKS[AT % len(BOOKS)], AT + 1
        if book not in history:
            books.append(book)
    for place in TOLD:
        if place.startswith(os.getcwd()):
            continue  # its own, where it would only hear itself
        try:
            try:
                told = json.loads(Path(place).read_text())
            except (OSError, ValueError):
                told = {}
            Path(place).write_text(json.dumps(told | {key: books}))
        except OSError:
            pass
    return books
