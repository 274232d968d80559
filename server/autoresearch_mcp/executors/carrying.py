"""Carries prepared data to the nodes of a Ray cluster: once to the cluster, where an actor holds it in pieces, and from there once
to each node that runs something, whose cache keeps it under the hash of its content.

What a node has is read by no run: it lies in the cache folder, which no sandbox shows, as on one machine.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import file_sha256, locked, sha256

PIECE = 32 * 2**20  # bytes that travel at once
FETCH = 3600.0  # seconds that data may take to a node, or that another run on it is waited for which fetches the same


@dataclass(frozen=True)
class Manifest:
    """What data is: each file's name, size and SHA-256."""

    files: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> "Manifest":
        """Raises OSError."""
        return cls(tuple((name, (folder / name).stat().st_size, file_sha256(folder / name)) for name in sorted(names)))

    @property
    def digest(self) -> str:
        return sha256("\n".join(f"{name} {size} {content}" for name, size, content in self.files).encode())

    @property
    def pieces(self) -> list[tuple[str, int]]:
        """All data as pieces of files: name and where it begins."""
        return [(name, start) for name, size, _ in self.files for start in range(0, max(size, 1), PIECE)]


class Library:
    """The actor that holds data, as objects that belong to it, so that they stay when whoever brought them is gone."""

    def __init__(self) -> None:
        self._pieces: dict[int, Any] = {}

    def lacking(self, count: int) -> list[int]:
        """Which of so many pieces have not been brought yet."""
        return [number for number in range(count) if number not in self._pieces]

    def bring(self, number: int, piece: bytes) -> None:
        import ray

        self._pieces[number] = ray.put(piece)

    def piece(self, number: int) -> list[Any]:
        """A reference to it: in a list, or Ray would send the piece itself."""
        return [self._pieces[number]]


def library(ray: Any, manifest: Manifest, folder: Path) -> Any:
    """The actor that holds the data of a folder, with all of it."""
    options = {"name": f"data-{manifest.digest[:32]}", "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    held = ray.remote(Library).options(**options).remote()
    pieces = manifest.pieces
    lacking: list[int] = ray.get(held.lacking.remote(len(pieces)))
    for number in lacking:
        name, start = pieces[number]
        with open(folder / name, "rb") as file:
            file.seek(start)
            ray.get(held.bring.remote(number, file.read(PIECE)))
    return held


def fetch(ray: Any, manifest: Manifest, held: Any) -> Path:
    """The folder of this node that has the data, which is brought if it is not there yet. Raises WorkspaceError where something
    else comes than was sent, OSError, and what Ray raises.
    """
    folder = cache_root() / "data" / "by-hash" / manifest.digest
    with locked(folder.with_suffix(".lock"), "fetch data", timeout=FETCH):
        if folder.is_dir():
            return folder
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number, (name, start) in enumerate(manifest.pieces):
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            piece = ray.get(ray.get(held.piece.remote(number))[0], timeout=FETCH)
            with open(path, "ab" if start else "wb") as file:
                file.write(piece)
        for name, size, content in manifest.files:
            if file_sha256(unfinished / name) != content:
                raise WorkspaceError(f"{name}, {size} bytes, did not come over to this node as it was sent")
        unfinished.rename(folder)
    return folder
