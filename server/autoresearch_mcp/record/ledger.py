"""The durable record: an append-only SQLite table of events, each chained to the last by hash, and the state that follows
from them. Also its exports, results.tsv and JSON. It knows nothing of git or processes.
"""

import hashlib
import sqlite3
import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from autoresearch_mcp.errors import LedgerError
from autoresearch_mcp.files import write_atomic

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
"""
GENESIS = "0" * 64


class EventBody(BaseModel):
    model_config = ConfigDict(frozen=True)


class SessionStarted(EventBody):
    kind: Literal["session"] = "session"
    tag: str
    branch: str
    base_commit: str
    file: str
    metric: str
    direction: Literal["minimize", "maximize"]
    noise_floor: float
    task_sha256: str


class ExperimentCommitted(EventBody):
    kind: Literal["experiment"] = "experiment"
    experiment: int
    session: str
    commit: str
    parent: str
    file_sha256: str
    lines: int
    added: int
    removed: int
    description: str
    hypothesis: str | None = None
    change_sha256: str | None = None
    """Of the change against the parent, freed of layout; None for the baseline."""
    places: list[str] = []
    """Where in the file it changes something."""


class RunStarted(EventBody):
    kind: Literal["run"] = "run"
    run: int
    experiment: int
    seed: int
    conditions: str
    """Hash of the task, the read-only files and the data that this run sees."""


class RunEnded(EventBody):
    kind: Literal["ended"] = "ended"
    run: int
    outcome: Literal["scored", "crash", "timeout", "refused"]
    failure: str | None = None
    score: float | None = None
    holdout: float | None = None
    """Sealed: no tool and no resource shows it."""
    details: dict[str, float] = {}
    seconds: dict[str, float] = {}
    """Measured outside the run, by phase: queued, startup, training, export, evaluation."""
    peak_memory_mb: float | None = None
    enforcement: str = "none"
    excerpt: str = ""


class VerdictGiven(EventBody):
    kind: Literal["verdict"] = "verdict"
    experiment: int
    verdict: Literal["keep", "discard"]
    reason: str
    learned: str | None = None


class Settled(EventBody):
    """The git side of the experiment's verdict is done."""

    kind: Literal["settled"] = "settled"
    experiment: int


Event = Annotated[
    SessionStarted | ExperimentCommitted | RunStarted | RunEnded | VerdictGiven | Settled, Field(discriminator="kind")
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass
class RunState:
    started: RunStarted
    started_at: float
    ended: RunEnded | None = None


@dataclass
class ExperimentState:
    committed: ExperimentCommitted
    at: float
    runs: list[RunState] = field(default_factory=list[RunState])
    verdict: VerdictGiven | None = None
    settled: bool = False

    @property
    def number(self) -> int:
        return self.committed.experiment

    @property
    def scores(self) -> list[float]:
        return [run.ended.score for run in self.runs if run.ended is not None and run.ended.score is not None]

    @property
    def score(self) -> float | None:
        """Mean over the scored runs; None where there is none."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def running(self) -> RunState | None:
        return self.runs[-1] if self.runs and self.runs[-1].ended is None else None

    @property
    def last(self) -> RunEnded | None:
        return next((run.ended for run in reversed(self.runs) if run.ended is not None), None)

    @property
    def status(self) -> str:
        """running, keep, discard, crash, timeout, refused, or scored where a verdict is owed."""
        if self.running:
            return "running"
        if self.verdict and (self.verdict.verdict == "keep" or self.score is not None):
            return self.verdict.verdict
        if self.score is not None:
            return "scored"
        return self.last.outcome if self.last else "pending"


@dataclass
class SessionState:
    started: SessionStarted
    at: float
    experiments: list[ExperimentState] = field(default_factory=list[ExperimentState])

    @property
    def best(self) -> ExperimentState | None:
        """The last one kept: `keep` lets nothing worse pass, so it is the best."""
        return next((e for e in reversed(self.experiments) if e.verdict and e.verdict.verdict == "keep"), None)

    @property
    def baseline(self) -> ExperimentState | None:
        """The first one kept."""
        return next((e for e in self.experiments if e.verdict and e.verdict.verdict == "keep"), None)

    @property
    def since_best(self) -> list[ExperimentState]:
        """The judged experiments after the last one kept: what did not help."""
        after = self.best.number if self.best else 0
        return [e for e in self.experiments if e.number > after and e.verdict]

    @property
    def current(self) -> ExperimentState | None:
        """The latest experiment while it awaits its verdict."""
        last = self.experiments[-1] if self.experiments else None
        return last if last and last.verdict is None else None

    @property
    def head_commit(self) -> str:
        """Where the branch must stand: at the best experiment, before one at the start."""
        return self.best.committed.commit if self.best else self.started.base_commit

    @property
    def running(self) -> tuple[ExperimentState, RunState] | None:
        return next(((e, e.running) for e in self.experiments if e.running), None)

    @property
    def noise_floor(self) -> float:
        """Twice the pooled standard deviation of repeated runs, never below what the task states."""
        repeated = [e.scores for e in self.experiments if len(e.scores) > 1]
        degrees = sum(len(scores) - 1 for scores in repeated)
        if not degrees:
            return self.started.noise_floor
        variance = sum(statistics.variance(scores) * (len(scores) - 1) for scores in repeated) / degrees
        return max(self.started.noise_floor, 2 * variance**0.5)

    def improvement(self, score: float) -> float | None:
        """How much better than the best a score is (positive is better); None before there is a best."""
        if self.best is None or self.best.score is None:
            return None
        return (score - self.best.score) * (1 if self.started.direction == "maximize" else -1)


@dataclass
class LedgerState:
    sessions: dict[str, SessionState] = field(default_factory=dict[str, SessionState])
    experiments: dict[int, ExperimentState] = field(default_factory=dict[int, ExperimentState])
    runs: dict[int, RunState] = field(default_factory=dict[int, RunState])

    def apply(self, at: float, event: Event) -> None:
        match event:
            case SessionStarted():
                self.sessions[event.tag] = SessionState(event, at)
            case ExperimentCommitted():
                experiment = ExperimentState(event, at)
                self.experiments[event.experiment] = experiment
                self.sessions[event.session].experiments.append(experiment)
            case RunStarted():
                run = RunState(event, at)
                self.runs[event.run] = run
                self.experiments[event.experiment].runs.append(run)
            case RunEnded():
                if self.runs[event.run].ended is None:  # the first word counts
                    self.runs[event.run].ended = event
            case VerdictGiven():
                self.experiments[event.experiment].verdict = event
            case Settled():
                self.experiments[event.experiment].settled = True


def _hash(previous: str, at: float, body: str) -> str:
    return hashlib.sha256(f"{previous}\n{at!r}\n{body}".encode()).hexdigest()


class Ledger:
    """Reads and appends events. Safe for several processes and threads at once."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.RLock()
        self._state = LedgerState()
        self._seq: int = 0
        self._hash: str = GENESIS
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
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
        """What the events so far add up to. Do not keep it: later calls update it in place."""
        with self._lock:
            rows = self._db.execute("SELECT seq, at, body, previous, hash FROM events WHERE seq > ? ORDER BY seq", (self._seq,))
            for seq, at, body, previous, digest in rows.fetchall():
                if seq != self._seq + 1 or previous != self._hash or digest != _hash(previous, at, body):
                    raise LedgerError(
                        f"The ledger {self.path} does not verify at event {seq}: its chain of hashes is broken, so somebody "
                        "changed it. Restore it from a backup, or start a new workspace; nothing was written."
                    )
                self._state.apply(at, _EVENT.validate_json(body))
                self._seq, self._hash = seq, digest
            return self._state

    @contextmanager
    def transaction(self) -> Generator["Transaction"]:
        """Everything read and appended inside is one atomic step, also against other processes."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise LedgerError(f"The ledger {self.path} cannot be written: {error}. Free disk space and try again.") from error
            try:
                transaction = Transaction(self.state())
                yield transaction
                previous, seq = self._hash, self._seq
                for event in transaction.events:
                    at, body = time.time(), event.model_dump_json()
                    digest = _hash(previous, at, body)
                    seq += 1
                    self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq, at, body, previous, digest))
                    previous = digest
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise LedgerError(
                        f"The ledger {self.path} cannot be written: {error}. Free disk space and try again."
                    ) from error
                raise

    def append(self, event: Event) -> None:
        with self.transaction() as transaction:
            transaction.append(event)


class Transaction:
    def __init__(self, state: LedgerState):
        self.state = state
        self.events: list[Event] = []

    def append(self, event: Event) -> None:
        self.events.append(event)

    def next_experiment(self) -> int:
        return max(self.state.experiments, default=0) + 1

    def next_run(self) -> int:
        return max(self.state.runs, default=0) + 1


# --- exports ----------------------------------------------------------------------------------------------------------


def format_score(score: float) -> str:
    """Six decimals as in Karpathy's results.tsv; six significant digits where that would lose a small or large score."""
    return f"{score:.6f}" if score == 0 or 0.001 <= abs(score) < 1e6 else f"{score:.6g}"


def results_tsv(state: LedgerState) -> str:
    """Karpathy's five columns: commit, the metric, memory_gb, status, description. One row an experiment that has ended."""
    metric = next((session.started.metric for session in state.sessions.values()), "score")
    lines = ["\t".join(("commit", metric, "memory_gb", "status", "description"))]
    for experiment in state.experiments.values():
        if experiment.last is None:
            continue
        score = format_score(experiment.score) if experiment.score is not None else "0.000000"
        memory = f"{(experiment.last.peak_memory_mb or 0) / 1024:.1f}"
        status = experiment.status if experiment.status in ("keep", "discard") else "crash"
        if experiment.status in ("scored", "running"):
            status = experiment.status
        description = " ".join(experiment.committed.description.split())
        lines.append("\t".join((experiment.committed.commit[:7], score, memory, status, description)))
    return "\n".join(lines) + "\n"


def export_json(state: LedgerState, sealed: bool = False) -> list[dict[str, Any]]:
    """Every experiment with its runs. `sealed` adds the holdout scores, which are for people only."""
    rows: list[dict[str, Any]] = []
    for experiment in state.experiments.values():
        row = experiment.committed.model_dump(exclude={"kind"})
        row |= {"at": experiment.at, "status": experiment.status, "score": experiment.score}
        row["learned"] = experiment.verdict.learned if experiment.verdict else None
        row["runs"] = [
            run.started.model_dump(exclude={"kind", "experiment"})
            | (run.ended.model_dump(exclude={"kind", "run"} if sealed else {"kind", "run", "holdout"}) if run.ended else {})
            for run in experiment.runs
        ]
        rows.append(row)
    return rows


def write_results(ledger: Ledger, path: Path) -> None:
    """Brings results.tsv up to date, whole or not at all."""
    write_atomic(path, results_tsv(ledger.state()).encode())
