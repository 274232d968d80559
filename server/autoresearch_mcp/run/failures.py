"""How the end of a run without a score is called. It looks at the log, the clock or an exception; it ends nothing."""

import signal
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.patterns import matches
from autoresearch_mcp.record.curves import AGAIN, DROPS, Diverged, Hopeless
from autoresearch_mcp.run import visible
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.text import plain, short_tracebacks, sound, tail

EXCERPT = 1600  # characters of a failed run's output that go into its row
REASON = 3000  # characters of why it failed
LINES = 90  # of its output that are looked at
LAST = 3  # of one that was pruned: the reason says it all
LAST_LINE = 400  # characters of a line that a step is looked for in
PATIENCE = 1.0  # seconds for a pattern


def overdue(clock: Clock) -> RunFailedError:
    """Of a run whose phase has lasted too long."""
    reason = {
        "startup": f"it did not ask for data within {clock.limit:.0f} s, its free start-up and its whole budget",
        "training": f"it did not finish within its budget and grace, {clock.limit:.0f} s",
        "export": f"it did not submit its result within {clock.limit:.0f} s after training",
    }[clock.phase]
    return RunFailedError("timeout", "timeout_startup" if clock.phase == "startup" else "timeout", reason)


def pruned(found: Hopeless, trained: float, saved: float) -> RunFailedError:
    """Of a run that was ended because nothing good could come of it; in seconds."""
    reason = (
        f"it was ended after {trained:.0f} s of training, which saves {saved:.0f} s: what it printed stood at {found.stands:.4g}; "
        f"coming on {DROPS:g} times as far as any earlier run did from there would leave it at {found.reachable:.4g}, and "
        f"{found.needed:.4g} is needed to be near the best"
    )
    return RunFailedError("pruned", "pruned", reason)


def diverged(found: Diverged, printed: Mapping[str, Any], trained: float) -> RunFailedError:
    """Of a run that has forgotten more than there is to learn; `printed` is what `run.progress` found last, `trained` seconds."""
    reason = (
        f"it has diverged{_at(printed)}, after {trained:.0f} s of training: what it printed stands at {found.stands:.4g} and began "
        f"at {found.began:.4g}, further the wrong way than any run before came the right way, {AGAIN} times in a row"
    )
    return RunFailedError("crash", "diverged", reason)


def not_finite(printed: Mapping[str, Any], trained: float) -> RunFailedError:
    """Of a run whose learning curve had numbers, and has none any more."""
    value = str(printed.get("y"))[:20]
    reason = f"what it prints is {value}{_at(printed)}, after {trained:.0f} s of training, and was so the time before"
    return RunFailedError("crash", "nan", reason)


def _at(printed: Mapping[str, Any], where: str = " at") -> str:
    return f"{where} step {str(printed['x'])[:20]}" if printed.get("x") is not None else ""


def require_in_time(clock: Clock) -> None:
    """Of what ends a phase: on a busy machine it may be heard before anybody looked at the clock. Raises RunFailedError."""
    if clock.overdue:
        raise overdue(clock)


def by_log(spec: RunSpec, returncode: int | None) -> RunFailedError:
    """Of a run that ended by itself: by the task's patterns on the end of its log."""
    text = tail(spec.log, 20000, 400)
    reason = f"it ended with exit status {returncode} and no result"
    if spec.task.run.progress is not None:
        lines = (line[:LAST_LINE] for line in reversed(text.splitlines()))
        reason += _at(next(matches(spec.task.run.progress, lines, PATIENCE), dict[str, Any]()), ", after")
    if (advice := visible.hint(text, spec.task.run.packages)) is not None:
        reason += f"; {advice}"
    for failure, pattern in spec.task.failures.items():
        if next(matches(pattern, [text], PATIENCE), None) is not None:
            return RunFailedError("timeout" if failure.startswith("timeout") else "crash", failure, reason)
    return RunFailedError("crash", "killed" if returncode == -signal.SIGKILL else "error", reason)


def excerpt(spec: RunSpec, failed: RunFailedError, note: str = "") -> str:
    """What a row says of a run without a score: why, a note of ours, and the end of what it printed, made fit to show."""
    lines = LAST if failed.failure == "pruned" else LINES
    output = short_tracebacks(tail(spec.log, 6000, lines)).replace(f"{spec.work}/", "")[-EXCERPT:]
    return "\n".join(part for part in (plain(sound(failed.reason[:REASON])), note, output) if part)


def of_error(error: Exception) -> RunFailedError:
    """What an exception, or a group of them, stands for; anything that is no named failure is a fault of ours, and says so."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, RunFailedError):
            return leaf
    traceback.print_exception(error)
    at = traceback.extract_tb(leaves[0].__traceback__)[-1:]
    where = f" ({Path(at[0].filename).name}:{at[0].lineno})" if at else ""
    text = f"{type(leaves[0]).__name__}: {leaves[0]}"[:500]
    return RunFailedError("crash", "error", f"internal error, no fault of the file that ran{where}: {text}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
