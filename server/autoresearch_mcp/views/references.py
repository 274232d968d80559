"""What can be read besides the editable file: the task's own files, outputs and diffs of experiments. Outputs are marked as
untrusted. What a scoring command printed is shown to an agent only where the task has nothing sealed: it may quote that.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop import batch
from autoresearch_mcp.loop.diffs import unified_diff
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.task import PROGRAM, TASK_FILE, Task
from autoresearch_mcp.text import tail, untrusted
from autoresearch_mcp.views.paging import Page, page

FILES = 30  # of the task that are named
OF_EXPERIMENTS = ("log:<experiment>", "scoring:<experiment>", "diff:<experiment>", "diff:best")  # what else read_reference can show


def references(task: Task, hidden: bool = False) -> list[str]:
    """Names of what read_reference can show; of many files the first."""
    files = task.files.read_only
    shown = files if len(files) <= FILES else [*files[:FILES], f"({len(files) - FILES} more, in {TASK_FILE})"]
    return [
        PROGRAM,
        TASK_FILE,
        *shown,
        *(name for name in OF_EXPERIMENTS if not ((hidden or task.data.sealed) and name.startswith("scoring"))),
    ]


def is_hidden(session: Session) -> bool:
    """Whether an agent may not see what the scoring command prints: it may quote what is sealed, or say the holdout's score."""
    return bool(session.task.data.sealed) or session.state.tells_holdout


def reference_text(session: Session, name: str) -> str:
    """A file of the task as the session pinned it. Raises NotFoundError."""
    known = references(session.task)
    if name not in (PROGRAM, TASK_FILE, *session.task.files.read_only):
        raise NotFoundError(f"There is no reference {name!r}. Choose one of: {', '.join(known)}.")
    return session.workspace.blob(session.state.started.base_commit, name).decode("utf-8", errors="replace")


def reference_page(session: Session, name: str, start: int | None, end: int | None) -> Page:
    kind, _, which = name.partition(":")
    if kind not in ("log", "scoring", "diff") or not which or (kind == "scoring" and is_hidden(session)):
        return page(reference_text(session, name), start, end)
    if kind == "diff" and which == "best":
        return page(diff_of_best(session) or "(the best is the baseline)", start, end)
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise NotFoundError(f"{name!r} names no experiment. Use {kind}:<number>, like {kind}:3.")
    experiment = session.experiment(int(which))
    if kind == "diff":
        return page(diff(session, experiment.number), start, end)
    output = page(_said(session, kind, experiment), start, end)
    return replace(output, text=untrusted(output.text, f"experiment {experiment.number}"))


def log(session: Session, number: int | None = None) -> str:
    """The end of an experiment's latest output, marked as untrusted."""
    experiment = session.experiment(number)
    return untrusted(output_of(session, experiment), f"experiment {experiment.number}")


def diff(session: Session, number: int | None = None) -> str:
    """What an experiment changed against the best of its time."""
    other = batch.comparable_experiment(session, number) if number is not None else None  # to take it over, it may be read
    committed = (other or session.experiment(number)).committed
    return _diff(session, committed.parent, committed.commit)


def diff_of_best(session: Session) -> str:
    """What all kept experiments together changed against the baseline; empty before there are two."""
    state = session.state
    return _diff(session, state.baseline.committed.commit, state.head_commit) if state.baseline else ""


def _diff(session: Session, old: str, new: str) -> str:
    return _diff_of_texts(session.text_at(old), session.text_at(new), session.task.files.editable)


@lru_cache(maxsize=16)
def _diff_of_texts(old: str, new: str, path: str) -> str:
    return unified_diff(old, new, path).text


def _said(session: Session, kind: str, experiment: ExperimentState) -> str:
    return output_of(session, experiment) if kind == "log" else output_of_scoring(session, experiment)


def output_of(session: Session, experiment: ExperimentState) -> str:
    path = log_path(session, experiment)
    return (tail(path, 8000, 200) if path else "") or "(no output)"


def output_of_scoring(session: Session, experiment: ExperimentState) -> str:
    """What the scoring command of its latest run printed, and the checks: for a human, or where nothing is sealed."""
    spec = session.spec(experiment.runs[-1].started.run) if experiment.runs else None
    logs = [log for log in (spec.scoring_log, spec.called_log, spec.checks_log) if log.exists()] if spec else []
    return "\n".join(tail(log, 8000, 200) for log in logs) or "(no output)"


def log_path(session: Session, experiment: ExperimentState) -> Path | None:
    """Where the latest run of the experiment prints."""
    spec = session.spec(experiment.runs[-1].started.run) if experiment.runs else None
    return spec.log if spec else None
