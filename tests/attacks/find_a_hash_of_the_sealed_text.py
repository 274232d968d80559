"""Tries: find something of the sealed splits beside the tokenizer: a hash would confirm a text that is known by heart.
Against: sealed data
Ends: crash error
With: bigram
"""

import os
import pathlib

for path in pathlib.Path(os.environ["AUTORESEARCH_DATA"]).rglob("*"):
    text = path.read_bytes()
    if b"sha256" in text or b"holdout" in text:
        print("BREACH: told by", path)
raise SystemExit(1)
