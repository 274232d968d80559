"""The rows that a session begins with and that an experiment begins with, from what the workspace has."""

from collections.abc import Mapping

from autoresearch_mcp.errors import WorkspaceError
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop import changes
from autoresearch_mcp.loop.diffs import unified_diff
from autoresearch_mcp.record.events import ExperimentCommitted, SessionStarted
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.text import one_line, split_lines
from autoresearch_mcp.workspace import Workspace

LEARNED = 2000  # characters of a hypothesis or a lesson that are recorded


def record_start(workspace: Workspace, ledger: Ledger, tag: str) -> None:
    """The row of a new session. Raises WorkspaceError or TaskError where its task cannot be pinned."""
    base = workspace.head()
    task = workspace.task_at(base)
    workspace.check_committed(task)
    branch = f"autoresearch/{tag}"
    if workspace.ref(f"refs/heads/{branch}") not in (None, base):
        raise WorkspaceError(
            f"The branch {branch} exists, but the ledger has no session of that name. Choose another: --session NAME. If the "
            "ledger was lost, put .autoresearch/ledger.db back from a backup first."
        )
    workspace.set_ref(f"refs/heads/{branch}", base)  # before the row: what git refuses starts no session
    ledger.append(
        SessionStarted(
            tag=tag,
            branch=branch,
            base_commit=base,
            file=task.files.editable,
            metric=task.metric.name,
            direction=task.metric.direction,
            noise_floor=task.metric.noise_floor,
            confidence=task.metric.confidence,
            task_sha256=task.sha256,
            experiments_before=workspace.highest_experiment(),
            runs_before=workspace.highest_run(),
        )
    )


def record_examination(workspace: Workspace, ledger: Ledger, examined: SessionState, tag: str) -> None:
    """The row of a session that takes another's best apart, under its task. Raises WorkspaceError."""
    branch, base = f"autoresearch/{tag}", examined.head_commit
    if workspace.ref(f"refs/heads/{branch}") not in (None, base):
        raise WorkspaceError(f"The branch {branch} is yours, and its name is needed. Rename it: git branch -m {branch} NAME")
    workspace.set_ref(f"refs/heads/{branch}", base)
    told = {"tag": tag, "branch": branch, "base_commit": base, "examines": examined.started.tag}
    before = {"experiments_before": workspace.highest_experiment(), "runs_before": workspace.highest_run()}
    ledger.append(examined.started.model_copy(update=told | before))


def latest_tag(sessions: Mapping[str, SessionState]) -> str:
    """The session that was started last, of those that are a line of research of their own."""
    own = {tag: state for tag, state in sessions.items() if state.started.examines is None}
    return max(own or sessions, key=lambda tag: sessions[tag].at)


def experiment_row(
    number: int, state: SessionState, commit: str, before: str, content: bytes, description: str, hypothesis: str | None
) -> ExperimentCommitted:
    """Of a file that is committed on top of the best, which is `before`."""
    text, name = content.decode("utf-8"), state.started.file
    diff, change = unified_diff(before, text, name), changes.between(name, before, text)
    return ExperimentCommitted(
        experiment=number,
        session=state.started.tag,
        commit=commit,
        parent=state.head_commit,
        file_sha256=sha256(content),
        lines=len(split_lines(text)),
        added=len(diff.added),
        removed=len(diff.removed),
        description=description,
        hypothesis=one_line(hypothesis, LEARNED) if hypothesis else None,
        change_sha256=change.digest if change else None,
        program_sha256=changes.program_digest(name, text),
        places=change.places if change else [],
        size=changes.size(name, text),
    )
