"""The record in forms that people use: results.tsv with Karpathy's five columns, and JSON."""

from pathlib import Path
from typing import Any

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.files import locked, write_atomic
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.state import LedgerState
from autoresearch_mcp.text import format_score, one_line, shown_difference

PATIENCE = 1.0  # seconds to wait for somebody else who writes the table: no step waits long for what follows from the ledger
MORE = ("runs", "gain", "gain_low", "gain_high")
"""Columns after the original's five: runs that the score is the mean of; the gain over the best of its time, with its interval."""


class Results:
    """The file results.tsv. It follows from the ledger, so losing it loses nothing, and failing to write it fails no step."""

    def __init__(self, ledger: Ledger, path: Path):
        self.ledger, self.path = ledger, path
        self._lock = ledger.path.with_name("results.lock")
        self._lines: dict[int, tuple[int, str | None]] = {}
        """By experiment: its version and its line, because in a long night few of them change."""

    def write(self) -> str:
        """Brings the file up to date, whole or not at all; of two writers the later one sees the newer state. Returns why it could
        not, for whoever is to know; empty where it could."""
        try:
            with locked(self._lock, "write results.tsv", timeout=PATIENCE):
                write_atomic(self.path, self.text().encode())
        except (OSError, AutoresearchError) as error:
            reason = getattr(error, "strerror", None) or error
            return f"{self.path} could not be written ({reason}); the ledger has everything, and the next step tries again"
        return ""

    def restore(self) -> str:
        """Writes the file where it is missing or behind the ledger."""
        try:
            current = self.path.read_bytes()
        except OSError:
            current = b""
        return self.write() if current != self.text().encode() else ""

    def text(self) -> str:
        """The content of the file: one row an experiment that has ended."""
        state = self.ledger.state()
        metric = next((session.started.metric for session in state.sessions.values()), "score")
        lines = ["\t".join(("commit", metric, "memory_gb", "status", "description", *MORE))]
        for number, experiment in state.experiments.items():
            if state.sessions[experiment.committed.session].started.examines is not None:
                continue  # no line of research
            version, line = self._lines.get(number, (-1, None))
            if version != experiment.version:
                line = _line(experiment)
                self._lines[number] = (experiment.version, line)
            if line is not None:
                lines.append(line)
        return "\n".join(lines) + "\n"


def _line(experiment: ExperimentState) -> str | None:
    if experiment.last is None:
        return None
    score = format_score(experiment.score) if experiment.score is not None else "0.000000"
    on_gpu = experiment.last.peak_vram_mb
    memory = f"{((experiment.last.peak_memory_mb if on_gpu is None else on_gpu) or 0) / 1024:.1f}"
    status = experiment.status if experiment.status in ("keep", "discard", "scored", "running", "pruned") else "crash"
    description = one_line(experiment.committed.description, 500)
    figures = experiment.verdict.gain if experiment.verdict else []
    gain = [format_score(shown_difference(figure, experiment.score or 0.0)) for figure in figures]
    more = (str(len(experiment.scores)), *gain, *[""] * (3 - len(gain)))
    return "\t".join((experiment.committed.commit[:7], score, memory, status, description, *more))


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
