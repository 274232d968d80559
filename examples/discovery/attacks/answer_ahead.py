# Tries: to put answers of its own into the pipe before any question has come, so that question and answer stand beside each other.
# Ends: refused, "recommend() gave" or "before it was asked"
import json
import os
from contextlib import suppress
from pathlib import Path

BOOKS = [line.split(",")[0] for line in Path("catalogue.csv").read_text().splitlines()[1:]]
for descriptor in range(3, 64):
    with suppress(OSError):
        os.write(descriptor, "".join(json.dumps(BOOKS[at : at + 10]) + "\n" for at in range(0, 600, 10)).encode() * 4)


def recommend(history, count):
    return BOOKS[:count]
