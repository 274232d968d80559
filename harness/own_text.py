"""
Text of the user's own, read-only: a folder of documents becomes the three splits. Only prepare.py uses it, before any run.

A document is a .txt or .md file (a long one is cut between paragraphs, into parts of about PART characters), the "text" of a line
of a .jsonl file (.gz and .xz too), or that of a row of a .parquet file. Of documents that are the same but for white space, the
first counts. In the order of their hashes the first are val's and the next holdout's, as many as it takes; so others that are
added move few. What is scored must not have been trained on, and text is often there twice, a little changed: one that shares
half of the sequences of SEQUENCE words that either has with one of a sealed split (Brown et al. 2020, arXiv:2005.14165, clean by
such overlaps) is left out of train, and of holdout where it is val's. The price: the folder is read eight times.
"""

import gzip
import hashlib
import json
import lzma
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

PLAIN, LINES, TABLES = (".txt", ".md"), (".jsonl", ".jsonl.gz", ".jsonl.xz"), (".parquet",)
PART = 10_000
SEQUENCE = 13  # words
OVERLAP = 0.5  # of a document's sequences
BYTES_PER_TOKEN = 6  # more than the bytes of a token of plain English, so that what is drawn for val is enough
LARGEST = 0.2  # share of the text that val may have
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese."""


def files(folder: Path) -> list[Path]:
    """Those with documents, in order. SystemExit where there are none."""
    if not folder.is_dir():
        sys.exit(f"prepare.py: {folder} is no folder. Name one with .txt, .md, .jsonl or .parquet files.")
    hidden = {path for path in folder.rglob("*") if any(part.startswith(".") for part in path.relative_to(folder).parts)}
    found = sorted(path for path in folder.rglob("*") if path not in hidden and path.is_file())
    kept = [path for path in found if path.name.lower().endswith((*PLAIN, *LINES, *TABLES))]
    if not kept:
        kinds = ", ".join(sorted({path.suffix or path.name for path in found})[:8]) or "nothing"
        sys.exit(
            f"prepare.py: {folder} has no .txt, .md, .jsonl or .parquet file (it has: {kinds}). Name another folder, or convert."
        )
    return kept


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of its files."""
    whole = hashlib.sha256()
    for path in files(folder):
        with open(path, "rb") as file:
            name = os.fsencode(path.relative_to(folder))
            whole.update(name + f" {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def documents(folder: Path) -> Iterator[str]:
    """All of them, but empty ones. SystemExit names a file that cannot be read."""
    for path in files(folder):
        try:
            for text in _documents_of(path):
                if text.strip():
                    yield text
        except (OSError, ValueError, EOFError, lzma.LZMAError) as error:  # a UnicodeDecodeError is a ValueError, as pyarrow's are
            sys.exit(f"prepare.py: {path} cannot be read: {error}. Mend it, or take it out of the folder, and run this again.")


def _documents_of(path: Path) -> Iterator[str]:
    name = path.name.lower()
    if name.endswith(PLAIN):
        yield from parts(path.read_text(encoding="utf-8-sig"))
    elif name.endswith(TABLES):
        import pyarrow.parquet as pq

        table = pq.ParquetFile(path)
        if "text" not in table.schema_arrow.names:
            raise ValueError(f"it has no column `text` (it has: {', '.join(table.schema_arrow.names[:8])})")
        for batch in table.iter_batches(columns=["text"]):
            texts = [text for text in batch.column(0).to_pylist() if text is not None]
            if any(not isinstance(text, str) for text in texts):
                raise ValueError(f"its column `text` holds no strings (it holds: {table.schema_arrow.field('text').type})")
            yield from texts
    else:
        opened = gzip.open if name.endswith(".gz") else lzma.open if name.endswith(".xz") else open
        with opened(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    text = json.loads(line)["text"]
                except (ValueError, KeyError, TypeError, RecursionError):
                    text = None
                if not isinstance(text, str):
                    raise ValueError(f'line {number} is no JSON object with a string "text"')
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(f"line {number} has half a character: {error}") from error
                yield text


def parts(text: str) -> Iterator[str]:
    """The text, cut where a paragraph ends, else a line, else anywhere, as long as two parts are left."""
    start = 0
    while len(text) - start > 2 * PART:
        ends = (text.rfind(mark, start + PART // 2, start + PART) for mark in ("\n\n", "\n"))
        end = next((end + 1 for end in ends if end >= 0), start + PART)
        yield text[start:end]
        start = end
    yield text[start:]


def key(text: str) -> bytes:
    """The same for documents that differ in white space alone."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).digest()[:16]


def sequences(text: str) -> set[int]:
    """Hashes of all that are SEQUENCE words long; of a shorter document, of the whole. Case and signs count for nothing, and in
    scripts without spaces each character is a word.
    """
    words = "".join(c if c.isalnum() else " " for c in UNSPACED.sub(r" \g<0> ", text.lower())).split()
    starts = range(max(1, len(words) - SEQUENCE + 1))
    return {hash(tuple(words[start : start + SEQUENCE])) for start in starts}


def splits(folder: Path, scored: int) -> dict[str, Callable[[], Iterator[str]]]:
    """For each split what gives its documents, from the beginning at every call; val has some `scored` tokens or more."""
    sizes, doubles = dict[bytes, int](), 0
    for text in documents(folder):
        doubles += (k := key(text)) in sizes
        sizes.setdefault(k, len(text.encode("utf-8", "surrogatepass")))
    n_bytes, wanted = sum(sizes.values()), scored * BYTES_PER_TOKEN
    split_of = _drawn(sizes, min(wanted, LARGEST * n_bytes))
    near = _near(folder, split_of)
    print(
        f"text:       {len(sizes)} documents, {n_bytes / 1e6:.1f} MB; left out: {doubles} that were there twice, {len(near)} near "
        "duplicates across splits"
    )
    if n_bytes * LARGEST < wanted:
        print(f"text:       little for this preset: about {wanted / LARGEST / 1e6:.1f} MB give {scored} tokens to score on")
    return {split: partial(_of_split, folder, split, split_of, near) for split in ("train", "val", "holdout")}


def _drawn(sizes: dict[bytes, int], wanted: float) -> dict[bytes, str]:
    """The split of each document: in the order of their hashes, the first `wanted` bytes are val's, half as many more holdout's."""
    split_of, order = dict[bytes, str](), iter(sorted(sizes))
    for split, enough in (("val", wanted), ("holdout", wanted / 2)):
        filled = 0
        while filled < enough and (k := next(order, None)) is not None:
            split_of[k] = split
            filled += sizes[k]
    return split_of | dict.fromkeys(order, "train")


def _once(folder: Path) -> Iterator[tuple[bytes, str]]:
    seen = set[bytes]()
    for text in documents(folder):
        if (k := key(text)) not in seen:
            seen.add(k)
            yield k, text


def _of_split(folder: Path, split: str, split_of: dict[bytes, str], near: set[bytes]) -> Iterator[str]:
    return (text for k, text in _once(folder) if split_of[k] == split and k not in near)


def _near(folder: Path, split_of: dict[bytes, str]) -> set[bytes]:
    """The keys of documents that are nearly one of another split, which is scored on and stays."""
    sealed, held = Sealed(), dict[bytes, set[int]]()
    for k, text in _once(folder):
        if split_of[k] == "val":
            sealed.add(sequences(text))
        elif split_of[k] == "holdout":
            held[k] = sequences(text)
    near = {k for k, found in held.items() if sealed.has_near(found)}
    for k in held.keys() - near:
        sealed.add(held[k])
    return near | {k for k, text in _once(folder) if split_of[k] == "train" and sealed.has_near(sequences(text))}


class Sealed:
    """Documents by their sequences."""

    def __init__(self):
        self._owners: dict[int, list[int]] = {}  # of each sequence, by number of the document
        self._sizes: list[int] = []

    def add(self, found: set[int]) -> None:
        for sequence in found:
            self._owners.setdefault(sequence, []).append(len(self._sizes))
        self._sizes.append(len(found))

    def has_near(self, found: set[int]) -> bool:
        shared = Counter(owner for sequence in found for owner in self._owners.get(sequence, ()))
        return any(count >= OVERLAP * min(len(found), self._sizes[owner]) for owner, count in shared.items())
