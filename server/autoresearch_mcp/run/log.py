"""A log that cannot fill the disk: the beginning and the end of an output, within a number of bytes."""

from pathlib import Path


class BoundedLog:
    """Keeps the beginning and the end of an output within `limit` bytes, on disk while it grows; what the disk does not take is
    dropped.
    """

    def __init__(self, path: Path, limit: int, more: bool = False):
        """`more`: what is there already stays, and this goes behind it."""
        self.path, self.limit = path, limit
        self._file = open(path, "r+b" if more and path.exists() else "w+b", buffering=0)  # noqa: SIM115 (closed by close)
        self._size, self.dropped = self._file.seek(0, 2), 0

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.limit // 4):
            part = data[start : start + self.limit // 4]
            try:
                if self._size + len(part) > self.limit:
                    self._compact()
                self._size += self._file.write(part)
            except OSError:  # a full disk is no reason to end a run
                self.dropped += len(part)

    def _compact(self) -> None:
        """Drops the middle: the first half of the limit stays, and the last eighth."""
        head, tail = self.limit // 2, self.limit // 8
        self._file.seek(self._size - tail)
        end = self._file.read()
        self.dropped += self._size - head - tail
        note = f"\n[... {self.dropped} bytes of output are not kept ...]\n".encode()
        self._file.seek(head)
        self._file.truncate()
        self._file.write(note + end)
        self._size = head + len(note) + len(end)

    def close(self) -> None:
        self._file.close()
