"""Makes what is sealed: the requests, and for every job of jobs.json files that no skill has seen, with what is to be printed.

`prepare.py DATA` makes val.json and holdout.json; `prepare.py --assets csv-files/assets` made the files that the author of a
skill sees, which are of the same kind.
"""

import argparse
import base64
import csv
import io
import json
import random
from pathlib import Path

NAMES = ["Ada Byron", "Grace, Brewster M.", "Emmy Noether", "S. Kowalewski", "Mary Somerville", 'Maria "Mitzi" Agnesi', "Zoë Nuñez"]
PLACES = ["Köln", "Zürich", "Málaga", "Paris", "Århus", "Łódź", "Rome"]
REGIONS, STATUS = ["east", "north", "south", "west"], ["open", "shipped", "returned"]
NOTES = ["", "", "fragile", "leave at the door, please", 'says "call first"', "two lines:\nring twice", "open", "a,b\nc", "Grüße"]
SEEDS = {"val": 20117, "holdout": 70921, "assets": 5}
DELIMITERS = {"val": "|", "holdout": "\t", "assets": ";"}


def as_csv(rows: list[list[str]], delimiter: str = ",") -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return file.getvalue()


def orders(draw: random.Random, count: int) -> list[list[str]]:
    """Records of orders.csv without the header; one in six is there twice."""
    rows: list[list[str]] = []
    for number in range(count):
        fields = (str(1000 + number), f"c{draw.randrange(12):02}", draw.choice(REGIONS), draw.choice(STATUS))
        rows.append([*fields, f"{draw.randrange(100, 99999) / 100:.2f}", draw.choice(NOTES)])
    for row in draw.sample(rows, count // 6):
        rows.insert(draw.randrange(len(rows) + 1), row)
    return rows


def files_of(part: str, count: int) -> tuple[dict[str, bytes], dict[str, tuple[str, object]]]:
    """The files of a part by name, and by job how its output is compared and what it is."""
    draw = random.Random(SEEDS[part])
    header = ["order_id", "customer_id", "region", "status", "amount", "note"]
    rows = orders(draw, count)
    customers = [[f"c{number:02}", draw.choice(NAMES)] for number in range(10)]  # c10 and c11 are unknown
    places = [["id", "city", "visits"], *([str(n), draw.choice(PLACES[:5]), str(draw.randrange(90))] for n in range(count // 2))]
    records = [["id", "a", "b"]]
    for number in range(count // 2):
        fields = [str(number), draw.choice(["x", "x, y", "two\nlines"]), str(draw.randrange(9))]
        records.append(draw.choice([fields, fields, fields, [*fields, "more"], fields[:2]]))
    files = {
        "orders.csv": as_csv([header, *rows]).encode("utf-8-sig"),
        "customers.csv": as_csv([["customer_id", "name"], *customers]).encode(),
        "export.csv": as_csv(places, DELIMITERS[part]).encode("cp1252"),
        "broken.csv": as_csv(records).encode(),
    }
    cents: dict[str, int] = {}
    for row in rows:
        cents[row[2]] = cents.get(row[2], 0) + int(row[4].replace(".", ""))
    names = dict(customers)
    first = [row for number, row in enumerate(rows) if row not in rows[:number]]
    expected: dict[str, tuple[str, object]] = {
        "count": ("lines", [str(len(rows))]),
        "filter": ("csv", [header, *(row for row in rows if row[3] == "open")]),
        "sum": ("csv", [["region", "total"], *([region, f"{cents[region] / 100:.2f}"] for region in sorted(cents))]),
        "join": ("csv", [["order_id", "name"], *([row[0], names.get(row[1], "")] for row in rows)]),
        "json": ("json", [dict(zip(header, row, strict=True)) for row in rows]),
        "dialect": ("csv", places),
        "unique": ("csv", [header, *first]),
        "validate": ("lines", [str(n) for n, row in enumerate(records, 1) if len(row) != 3]),
    }
    return files, expected


def prompts(path: Path) -> list[list[str]]:
    """Pairs of label and text; the label is `yes`, the name of the skill that is meant instead, or `none`."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--version")
    parser.add_argument("--no-jobs", action="store_true", help="for a skill whose blocks have only to run")
    parser.add_argument("--assets", type=Path)
    given = parser.parse_args()
    if given.assets:
        for name, content in files_of("assets", 18)[0].items():
            (given.assets / name).write_bytes(content)
        return
    given.data.mkdir(parents=True, exist_ok=True)
    for part in ("val", "holdout"):
        files, expected = files_of(part, 60)
        content = {
            "prompts": prompts(Path(f"prompts_{part}.tsv")),
            "files": {name: base64.b64encode(data).decode() for name, data in files.items()},
            "jobs": {job: {"as": kind, "expected": value} for job, (kind, value) in expected.items() if not given.no_jobs},
        }
        (given.data / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
