"""Carries prepared data to the nodes of a Ray cluster: once to the cluster, where an actor holds it in pieces, and from there once
to each node that runs something, whose cache keeps it under the hash of its content.

What a node has is read by no run: it lies in the cache folder, which no sandbox shows, as on one machine.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch_mcp.data import cache_root
from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import file_sha256, locked, sha256

PIECE = 32 * 2**20  # bytes that travel at once
FETCH = 3600.0  # seconds that data may take to a node, or that another run on it is waited for which fetches the same
STALLED = 180.0  # seconds without another piece, after which whoever brings the data is taken for dead
LOOK = 0.5  # seconds


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


def library(ray: Any, manifest: Manifest) -> Any:
    """The actor that holds data, new or with what has been brought to it."""
    options = {"name": f"data-{manifest.digest[:32]}", "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    return ray.remote(Library).options(**options).remote()


def bring(ray: Any, held: Any, manifest: Manifest, folder: Path) -> None:
    """Brings what it lacks. Raises OSError, and what Ray raises."""
    pieces = manifest.pieces
    lacking: list[int] = ray.get(held.lacking.remote(len(pieces)))
    for number in lacking:
        name, start = pieces[number]
        with open(folder / name, "rb") as file:
            file.seek(start)
            ray.get(held.bring.remote(number, file.read(PIECE)))


def fetch(ray: Any, held: Any, manifest: Manifest, given_up: Callable[[], bool]) -> Path | None:
    """The folder of this node that has the data, which is brought if it is not there yet; None once `given_up` answers yes. Raises
    WorkspaceError where nothing comes, or something else than was sent, OSError, and what Ray raises.
    """
    folder = cache_root() / "data" / "by-hash" / manifest.digest
    with locked(folder.with_suffix(".lock"), "fetch data", timeout=FETCH):
        if folder.is_dir():
            return folder
        if not _is_there(ray, held, manifest, given_up):
            return None
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number, (name, start) in enumerate(manifest.pieces):
            if given_up():
                return None
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            piece = ray.get(ray.get(held.piece.remote(number))[0], timeout=FETCH)
            with open(path, "ab" if start else "wb") as file:
                file.write(piece)
        for name, size, content in manifest.files:
            if file_sha256(unfinished / name) != content:
                ray.kill(held)  # the next run has it brought anew
                raise WorkspaceError(
                    f"{name}, {size} bytes, did not come over to this node as it was sent; it will be sent anew: run it again"
                )
        unfinished.rename(folder)
    return folder


def _is_there(ray: Any, held: Any, manifest: Manifest, given_up: Callable[[], bool]) -> bool:
    """Waits until all of the data has been brought; False once `given_up` answers yes."""
    count = len(manifest.pieces)
    left, since = count + 1, time.monotonic()
    while lacking := len(ray.get(held.lacking.remote(count))):
        if given_up():
            return False
        if lacking < left:
            left, since = lacking, time.monotonic()
        if time.monotonic() - since > STALLED:
            raise WorkspaceError(
                f"the data did not come: {lacking} of {count} pieces are missing, and whoever brought them is gone. Run it again"
            )
        time.sleep(LOOK)
    return True
