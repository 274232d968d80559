"""
Where the text comes from, read-only: documents of three splits, from the embedded corpus, from downloaded shards or from a folder
of the user's own (own_text.py); and how documents, once tokenised, fill rows of one length.

Only prepare.py uses it, before any run; a run has no network and no text. Downloads are resumed, retried and checked against the
hash that the server announced: a damaged shard is removed and named, so that running the same command again mends it.
"""

import hashlib
import json
import lzma
import math
import os
import sys
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np

import own_text

EMBEDDED = Path(__file__).parent / "corpus" / "annual_messages.jsonl.xz"
OF_EMBEDDED = ("tiny", "cpu", "cpu-8")  # presets whose text that is
TINY_TRAIN_DOCUMENTS = 48  # the tiny preset prepares in seconds because it uses only these

CLIMBMIX = "karpathy/climbmix-400b-shuffle"  # the gpu preset's: https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle
MAX_SHARD = 6542  # index of the last shard
VAL_SHARD = MAX_SHARD  # validation text, the shard Karpathy pins
HOLDOUT_SHARD = MAX_SHARD - 1  # sealed: neither trained on nor shown to an agent
TRAIN_SHARDS = 10  # as many as autoresearch downloads, where nobody says otherwise
WAITS = (2, 4, 8, 16)  # seconds before the second try of a download and those after it


def source(preset: str, corpus: Path, train_shards: int, text: Path | None) -> dict[str, object]:
    """What tells one text from another: prepared again when this changes."""
    if text is not None:
        return {"source": f"own {own_text.digest(text)}", "shards": 0}
    if preset not in OF_EMBEDDED:
        return {"source": CLIMBMIX, "shards": train_shards}
    return {"source": f"embedded {file_sha256(corpus)}", "shards": 0}


def documents(
    preset: str, corpus: Path, train_shards: int, cache: Path, text: Path | None, scored: int
) -> dict[str, Callable[[], Iterator[str]]]:
    """For each split what gives its documents, from the beginning at every call. Downloads go to `cache` first; of a folder of
    one's own, `scored` tokens must be had for val.
    """
    if text is not None:
        return own_text.splits(text, scored)
    if preset not in OF_EMBEDDED:
        return {split: partial(parquet_documents, paths) for split, paths in climbmix(cache, train_shards).items()}
    splits = embedded(corpus)
    if preset == "tiny":
        splits["train"] = splits["train"][:: len(splits["train"]) // TINY_TRAIN_DOCUMENTS][:TINY_TRAIN_DOCUMENTS]
    return {split: partial(iter, texts) for split, texts in splits.items()}


def embedded(corpus: Path) -> dict[str, list[str]]:
    """The embedded corpus by split. All documents of one year go to one split, so none has a near twin in another."""
    splits: dict[str, list[str]] = {"train": [], "val": [], "holdout": []}
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            draw = hashlib.sha256(f"year {document['year']}".encode()).digest()[0]
            split = "val" if draw < 16 else "holdout" if draw < 32 else "train"
            splits[split].append(document["text"])
    return splits


def climbmix(cache: Path, train_shards: int) -> dict[str, list[Path]]:
    """The shards by split, downloaded into `cache` (in parallel, each put in place whole) and every one checked."""
    indices = {"train": range(min(train_shards, HOLDOUT_SHARD)), "val": [VAL_SHARD], "holdout": [HOLDOUT_SHARD]}
    names = {split: [f"shard_{index:05d}.parquet" for index in group] for split, group in indices.items()}
    folder = download([*chain.from_iterable(names.values())], cache)
    paths = {split: [folder / name for name in group] for split, group in names.items()}
    for path in chain.from_iterable(paths.values()):
        check_shard(path)
    return paths


def download(names: list[str], cache: Path) -> Path:
    """The folder that has the files `names` of the data set; what has arrived stays for the next try."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    for wait in (*WAITS, None):
        try:
            folder = snapshot_download(
                CLIMBMIX,
                repo_type="dataset",
                allow_patterns=names,
                cache_dir=cache,
                endpoint=os.environ.get("HF_ENDPOINT"),
                max_workers=8,
            )
            return Path(folder)
        except Exception as error:  # the network's failures come as many types
            if wait is None:
                raise SystemExit(
                    f"prepare.py: the download failed {len(WAITS) + 1} times ({type(error).__name__}: {error}). What has arrived "
                    "is kept: check the connection and run this again, or use the cpu preset, which needs no download."
                ) from error
            print(f"  the download failed ({type(error).__name__}); trying again in {wait} s")
            time.sleep(wait)


def check_shard(path: Path) -> None:
    """Ends the program if a shard is damaged, and removes it."""
    import pyarrow.parquet as pq

    blob = path.resolve()  # its name is its ETag, for large files the SHA-256 of the content
    try:
        if len(blob.name) == 64 and file_sha256(blob) != blob.name:
            raise ValueError("its SHA-256 is not the one the server announced")
        pq.ParquetFile(path)
    except Exception as error:
        blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise SystemExit(f"prepare.py: {path.name} is damaged ({error}) and was removed. Run this again.") from error


def parquet_documents(paths: Iterable[Path]) -> Iterator[str]:
    """Documents of the shards, one row group in memory at a time."""
    import pyarrow.parquet as pq

    for path in paths:
        shard = pq.ParquetFile(path)
        for group in range(shard.num_row_groups):
            yield from shard.read_row_group(group, columns=["text"]).column("text").to_pylist()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack_rows(documents: Iterable[list[int]], row_len: int, bos: int, max_rows: int | None = None) -> Iterator[np.ndarray]:
    """Packs token lists (each begins with BOS) into rows of row_len tokens that all begin with BOS, nothing padded.

    Best fit over a buffer of pieces, as Karpathy's loader does it on the fly. Differences: a document longer than what is
    left of a row is split, its remainder goes on behind a BOS of its own, and no token is thrown away.
    """
    buffer: list[tuple[int, int, list[int]]] = []  # (length, order, piece), sorted: the best fit is one bisection away
    order = count()

    def add(tokens: list[int]) -> None:
        for start in range(1, len(tokens), row_len - 1):
            piece = [bos, *tokens[start : start + row_len - 1]]
            insort(buffer, (len(piece), next(order), piece))

    source = iter(documents)
    for _ in count() if max_rows is None else range(max_rows):
        row: list[int] = []
        while len(row) < row_len:
            while len(buffer) < 1000 and (document := next(source, None)) is not None:
                add(document)
            if not buffer:
                return  # what is left does not fill a row
            space = row_len - len(row)
            fit = bisect_right(buffer, (space, math.inf)) - 1
            _, _, piece = buffer.pop(max(fit, 0))  # where none fits, the shortest is split
            row += piece[:space]
            add([bos, *piece[space:]])
        yield np.array(row)
