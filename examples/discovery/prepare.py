"""Lays the sealed readers into the folder of data: the carried ones, or with the preset `fresh` new ones of the same model."""

import secrets
import shutil
import sys
from pathlib import Path

import generate

folder, preset = Path(sys.argv[1]), sys.argv[2]
folder.mkdir(parents=True, exist_ok=True)
if preset == "fresh":
    readers = generate.make_readers(generate.make_catalogue(), seed=secrets.randbits(128))
    (folder / "readers.txt").write_text(generate.readers_text(readers), encoding="utf-8")
else:
    shutil.copyfile("readers.txt", folder / "readers.txt")
