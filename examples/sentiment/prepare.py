"""Unpacks the sealed seasons to where only the scoring command reads them.

python prepare.py FOLDER
"""

import hashlib
import lzma
import sys
from pathlib import Path

SOURCE = Path("data/sealed.tsv.xz")
SHA256 = "4fda79038014d759641833e57dfb8279888832fbfecc756fbe8af1ff48f5647e"  # of what is in it

if __name__ == "__main__":
    content = lzma.decompress(SOURCE.read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"{SOURCE} is not the file that this task was made with. Take it from the task again.")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sealed.tsv").write_bytes(content)
    games = sum(line.split("\t")[1] == "game" for line in content.decode().splitlines())
    print(f"sealed.tsv: {games} games")
