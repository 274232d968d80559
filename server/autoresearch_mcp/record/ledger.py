"""The ledger on disk: one append-only SQLite table of events, each chained to the last by hash. It knows no git and no process.

Opening reads everything and folds it into the state: about a second for 100,000 events. Every event read for the first time is
checked against the chain, and the place up to which it held is noted beside it (the checkpoint), so that the next opening hashes
only what came since; `verify` hashes all of it again.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from autoresearch_mcp.errors import LedgerError
from autoresearch_mcp.record.events import Event, read_events, write_event
from autoresearch_mcp.record.state import LedgerState

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE TRIGGER IF NOT EXISTS events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_are_not_removed BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE IF NOT EXISTS checkpoint (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
);
"""
GENESIS = "0" * 64
ALGORITHM = "sha256"
CHECKPOINT_EVERY = 1000  # events
PATIENCE = 30  # seconds to wait for another process that writes

Row = tuple[int, float, object, object, object]
"""seq, at, body, previous, hash; the last three are texts where nothing is damaged."""


def chain_hash(previous: str, at: float, body: str, algorithm: str = ALGORITHM) -> str:
    """The hash of an event that follows `previous`: `<algorithm>:<hex>`. Version 0.1.0 wrote the hexadecimal digits alone."""
    digest = hashlib.sha256(f"{previous}\n{at!r}\n{body}".encode()).hexdigest()
    return f"{algorithm}:{digest}" if algorithm else digest


def _cannot_write(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"The ledger {path} cannot be written: {error}. Free disk space, check that the file is yours, and try again."
    )


class Ledger:
    """Reads and appends events. Safe for several processes and threads at once. Every error of the disk is a LedgerError."""

    def __init__(self, path: Path, make: bool = True):
        """Opens the ledger, with `make` an absent one is made. Raises LedgerError."""
        self.path = path
        self._lock = threading.RLock()
        self._state = LedgerState()
        self._seq: int = 0
        self._hash: str = GENESIS
        self._noted: int = 0
        """The event up to which the checkpoint says that the chain holds."""
        try:
            name = f"{path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}"
            self._db = sqlite3.connect(name, timeout=PATIENCE, isolation_level=None, check_same_thread=False, uri=True)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise LedgerError(
                f"The ledger {path} cannot be opened: {error}. Check that the disk is not full and the file is yours; "
                "a copy of the file's last good version from a backup also works."
            ) from error

    def close(self) -> None:
        self._db.close()

    def state(self) -> LedgerState:
        """What the events so far add up to. Do not keep it: later calls update it in place. Raises LedgerError."""
        with self._lock:
            try:
                if self._seq == 0:
                    self._take_what_was_checked()
                rows = self._rows(after=self._seq)
                self._check(rows, self._seq, self._hash)
            except sqlite3.Error as error:
                raise LedgerError(f"The ledger {self.path} cannot be read: {error}. Restore it from a backup.") from error
            if rows:
                self._fold([(row[1], str(row[2])) for row in rows], rows[-1][0], str(rows[-1][4]))
                self._note_checkpoint()
            return self._state

    @property
    def length(self) -> int:
        """How many events there are."""
        self.state()
        return self._seq

    def verify(self) -> int:
        """Checks the whole chain from its first event; returns how many there are. Raises LedgerError where it is broken."""
        with self._lock:
            try:
                rows = self._rows(after=0)
            except sqlite3.Error as error:
                raise LedgerError(f"The ledger {self.path} cannot be read: {error}. Restore it from a backup.") from error
            self._check(rows, 0, GENESIS)
            return len(rows)

    @contextmanager
    def transaction(self) -> Generator["Transaction"]:
        """Everything read and appended inside is one atomic step, also against other processes. Raises LedgerError."""
        with self._lock, self._writing():
            transaction = Transaction(self.state())
            yield transaction
            self._insert(transaction.events, self._seq, self._hash)

    def append(self, event: Event) -> None:
        """Adds one event without reading those before it, but for the hash of the last."""
        with self._lock, self._writing():
            last: tuple[int, str] = self._db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone() or (
                0,
                GENESIS,
            )
            self._insert([event], *last)

    # --- the table ---

    @contextmanager
    def _writing(self) -> Generator[None]:
        """A write transaction: all of it or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _cannot_write(self.path, error) from error
            raise

    def _insert(self, events: list[Event], seq: int, previous: str) -> None:
        for event in events:
            at, body = time.time(), write_event(event)
            digest = chain_hash(previous, at, body)
            seq += 1
            self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq, at, body, previous, digest))
            previous = digest

    def _rows(self, after: int) -> list[Row]:
        return self._db.execute("SELECT seq, at, body, previous, hash FROM events WHERE seq > ? ORDER BY seq", (after,)).fetchall()

    def _check(self, rows: list[Row], seq: int, previous: str) -> None:
        """Raises LedgerError unless the rows continue the chain after the event `seq` with the hash `previous`."""
        for number, at, body, before, digest in rows:
            if not (isinstance(body, str) and isinstance(before, str) and isinstance(digest, str)):
                raise LedgerError(f"Event {number} of the ledger {self.path} is no text: it was damaged. Restore it from a backup.")
            algorithm = digest.partition(":")[0] if ":" in digest else ""
            if algorithm not in ("", ALGORITHM):
                raise LedgerError(
                    f"Event {number} of the ledger {self.path} is chained by {algorithm!r}, which this version does not know. "
                    "Install the version of autoresearch-mcp that wrote it, or a later one."
                )
            if number != seq + 1 or before != previous or digest != chain_hash(before, at, body, algorithm):
                raise LedgerError(
                    f"The ledger {self.path} does not verify at event {number}: its chain of hashes is broken, so somebody "
                    "changed it. Restore it from a backup, or start a new workspace; nothing was written."
                )
            seq, previous = number, digest

    def _take_what_was_checked(self) -> None:
        """Folds the events up to the checkpoint, where one is noted and is of this chain, without hashing them again."""
        query = "SELECT c.seq, c.hash FROM checkpoint c JOIN events e ON e.seq = c.seq AND e.hash = c.hash"
        noted: tuple[int, str] | None = self._db.execute(query).fetchone()
        if noted is None:
            return
        rows: list[tuple[float, str]] = self._db.execute(
            "SELECT at, body FROM events WHERE seq <= ? ORDER BY seq", (noted[0],)
        ).fetchall()
        if len(rows) == noted[0]:
            self._noted = noted[0]
            self._fold(rows, *noted)

    def _fold(self, rows: list[tuple[float, str]], seq: int, digest: str) -> None:
        """Takes the events (at, body) up to `seq`, whose hash is `digest`, into the state."""
        for (at, body), event in zip(rows, read_events([body for _, body in rows]), strict=True):
            try:
                self._state.apply(at, event)
            except KeyError as error:
                raise LedgerError(
                    f"The ledger {self.path} names {error}, which was never recorded: {body[:200]}. Restore it from a backup."
                ) from error
        self._seq, self._hash = seq, digest

    def _note_checkpoint(self) -> None:
        if self._seq - self._noted < CHECKPOINT_EVERY or self._db.in_transaction:
            return
        try:
            self._db.execute("PRAGMA busy_timeout = 0")  # reading waits for nobody's writing
            self._db.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?)", (self._seq, self._hash))
            self._noted = self._seq
        except sqlite3.Error:
            return  # somebody writes, or the disk is full or read-only: the next opening hashes once more
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000}")


class Transaction:
    def __init__(self, state: LedgerState):
        self.state = state
        self.events: list[Event] = []

    def append(self, event: Event) -> None:
        self.events.append(event)

    def next_experiment(self) -> int:
        return self.state.last_experiment + 1

    def next_run(self) -> int:
        return self.state.last_run + 1
