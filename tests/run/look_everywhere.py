"""Runs inside a sandbox: reads every file that it can open, archives and compressed files too, and prints those that hold something
sealed.

    python look_everywhere.py DESCRIPTOR [FOLDER]...

Over the socket come descriptors of three files: an index; the paths to try besides those that can be found by listing folders, from
those given down, or from all; and an empty one, for the device, inode, size and time of each file that holds nothing, as (N, 4). The
index (np.savez) has `sealed`, all that must not be found, as bytes; `fresh`, whether the training text lacks each PIECE bytes of it;
and `clean`, such files of another time, which are not read again.

Found is what holds two adjacent fresh pieces. Wherever two pieces lie in a file, one of its multiples of PIECE starts WINDOW bytes of
them; so of the file only those windows are looked up, in a table of all windows of what is sealed. 6 GB took 100 s on two busy cores.
"""

import bz2
import gzip
import io
import lzma
import os
import socket
import stat
import sys
import tarfile
import zipfile
import zlib

import numpy as np

PIECE, WINDOW = 64, 16
BLOCK = 8 << 20  # bytes read at once
OVERLAP = 8 * PIECE
NESTED = 2  # how many wrappings are opened
LARGEST = 2 << 30  # bytes of what comes out of one
KERNEL = ("/proc", "/sys", "/dev")  # made by the kernel as they are read
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


def mixed(words: np.ndarray) -> np.ndarray:
    """One number for each window of two 8-byte words."""
    keys = words * FACTORS
    return keys[:, 0] ^ (keys[:, 1] >> np.uint64(7))


class Index:
    def __init__(self, sealed: np.ndarray, fresh: np.ndarray):
        self.sealed, self.fresh = sealed, fresh
        windows = np.lib.stride_tricks.sliding_window_view(sealed, WINDOW)
        keys = np.concatenate([mixed(part.copy().view(np.uint64)) for part in np.array_split(windows, 64)])
        places = np.flatnonzero((windows != windows[:, :1]).any(1))  # files are full of zeros
        self.places = places[np.argsort(keys[places], kind="stable")]
        self.keys = keys[self.places]
        self.maybe = np.zeros(1 << 26, bool)
        self.maybe[self.keys >> np.uint64(38)] = True

    def holds(self, data: np.ndarray) -> bool:
        """Whether the data hold two adjacent fresh pieces."""
        count = (len(data) - WINDOW) // PIECE + 1
        if count <= 0:
            return False
        windows = np.lib.stride_tricks.as_strided(data, (count, WINDOW), (PIECE, 1))
        keys = mixed(windows.copy().view(np.uint64))
        numbers = np.flatnonzero(self.maybe[keys >> np.uint64(38)])
        firsts = np.searchsorted(self.keys[:-1], keys[numbers])
        known = self.keys[firsts] == keys[numbers]
        for number, first in zip(numbers[known], firsts[known], strict=True):
            last = np.searchsorted(self.keys, keys[number], "right")
            if any(self.is_found(data, int(number) * PIECE, int(place)) for place in self.places[first : min(last, first + 16)]):
                return True
        return False

    def is_found(self, data: np.ndarray, at: int, place: int) -> bool:
        """Whether what lies around `at`, as far as it is the same as around `place`, has two adjacent fresh pieces."""
        reach = 4 * PIECE
        before, after = min(at, place, reach), min(len(data) - at, len(self.sealed) - place, reach)
        same = data[at - before : at + after] == self.sealed[place - before : place + after]
        if not same[before : before + WINDOW].all():
            return False
        wrong = np.flatnonzero(~same)
        start = place - before + int(max(wrong[wrong < before], default=-1)) + 1
        end = place - before + int(min(wrong[wrong > before], default=len(same)))
        pieces = range(-(-start // PIECE), end // PIECE)
        return any(self.fresh[piece] and self.fresh[piece + 1] for piece in pieces[:-1])


def unwrapped(stream, head: bytes):
    """What comes out of a compressed stream or an archive, by its first bytes."""
    if head.startswith(b"\xfd7zXZ"):
        yield lzma.open(stream)  # noqa: SIM115 (ends with the stream)
    elif head.startswith(b"\x1f\x8b"):
        yield gzip.open(stream)  # noqa: SIM115 (ends with the stream)
    elif head.startswith(b"BZh"):
        yield bz2.open(stream)  # noqa: SIM115 (ends with the stream)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            from compression import zstd  # Python 3.14
        except ImportError:
            return
        yield zstd.open(stream)
    elif head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(stream) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield member
    elif head[257:262] == b"ustar":
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                if entry.isreg() and (member := archive.extractfile(entry)) is not None:
                    yield member
    elif len(head) > 2 and head[0] == 0x78 and int.from_bytes(head[:2]) % 31 == 0:  # as git stores objects
        yield io.BytesIO(zlib.decompressobj().decompress(stream.read(BLOCK), LARGEST))


def look(index: Index, stream, depth: int = 0) -> bool:
    """Whether a stream holds something sealed, as it is or unwrapped."""
    rest, read, head = b"", 0, b""
    while (block := stream.read(BLOCK)) and read < LARGEST:
        head = head or block[:512]
        read += len(block)
        if index.holds(np.frombuffer(rest + block, np.uint8)):
            return True
        rest = block[-(OVERLAP + len(block) % PIECE) :]
    if depth > NESTED:
        return False
    try:
        stream.seek(0)
        return any(look(index, inner, depth + 1) for inner in unwrapped(stream, head))
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        tarfile.TarError,
    ):
        return False  # it only looked like one


def listed(roots):
    """Files in all folders that can be listed, from these down."""
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in KERNEL]
            yield from (os.path.join(folder, name) for name in files)


def main(descriptor: int, roots: list[str]) -> None:
    with socket.socket(fileno=descriptor) as ours:
        received = socket.recv_fds(ours, 1, 3)[1]
    with open(received[0], "rb") as file:
        content = np.load(file)
        index, before = Index(content["sealed"], content["fresh"]), set(map(tuple, content["clean"].tolist()))
    with open(received[1]) as file:
        named = file.read().split("\0")
    seen: set[tuple[int, ...]] = set()
    clean: list[tuple[int, ...]] = []
    total = 0
    for path in (*named, *listed(roots or ["/", os.getcwd(), *sys.path, sys.prefix, sys.base_prefix])):
        if path.startswith(tuple(f"{kernel}/" for kernel in KERNEL)):
            continue
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        with open(opened, "rb", buffering=0) as stream:
            status = os.fstat(opened)
            file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if not stat.S_ISREG(status.st_mode) or file in seen:
                continue
            seen.add(file)
            total += status.st_size
            if file in before:
                continue
            if look(index, stream):
                print(f"found {path}", flush=True)
            else:
                clean.append(file)
    with open(received[2], "wb") as file:
        np.save(file, np.array(clean, np.int64).reshape(-1, 4))
    print(f"looked at {len(seen)} files, {total >> 20} MiB", flush=True)


if __name__ == "__main__":
    main(int(os.environ["AUTORESEARCH_SOCKET"]), sys.argv[1:])
