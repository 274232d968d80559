"""When a session's tools were last called, for processes that look from outside: the time of a file, which each call touches.

It is a sign of life, no record: what is not in the ledger counts for nothing in the loop. A call costs 3 microseconds for it.
"""

from pathlib import Path

from autoresearch_mcp.loop.session import Session


def _path(session: Session) -> Path:
    return session.workspace.state_dir / f"session-{session.tag}.called"


def note_call(session: Session) -> None:
    """Raises OSError."""
    _path(session).touch()


def last_call(session: Session) -> int | None:
    """The time of the last call in nanoseconds, which differs from call to call; None where there was none."""
    try:
        return _path(session).stat().st_mtime_ns
    except OSError:
        return None
