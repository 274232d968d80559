"""The task's checks of a run that has a score: each command in a sandbox of its own, on the pinned files and what the run left.

A check passes with exit status 0. What fails says why in an excerpt of its output, which may quote the editable file and is as
little trusted as that. It ends nothing but itself: the score stands, and the verdict looks at both.
"""

from collections.abc import Callable

import anyio

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run import visible
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import end_tree
from autoresearch_mcp.sections import Check
from autoresearch_mcp.text import plain, short_tracebacks, sound

EXCERPT = 1500  # characters of what a failed check printed
LOG_BYTES = 1 << 20


async def make(cell: Cell, children: list[int], stopped: Callable[[], RunFailedError | None]) -> dict[str, str]:
    """By the name of each check: nothing where it passed, else why not. Raises RunFailedError, what `stopped` says. The processes
    that were started are added to `children`.
    """
    log = BoundedLog(cell.spec.checks_log, LOG_BYTES)
    try:
        return {check.name: await _one(cell, check, log, children, stopped) for check in cell.task.checks}
    finally:
        log.close()


async def _one(cell: Cell, check: Check, log: BoundedLog, children: list[int], stopped: Callable[[], RunFailedError | None]) -> str:
    log.write(f"--- {check.name}\n".encode())
    try:
        child = cell.start_check(check, log)
    except (OSError, RunFailedError) as error:
        return f"it cannot be started: {' '.join(plain(sound(str(error))).split())}"[:EXCERPT]
    children.append(child.pid)
    try:
        stop, late = await _ended(child, check.timeout_seconds, stopped)
        if child.returncode is None:
            end_tree(child.pid)
        child.drain()
        if stop is not None:
            raise stop
        if child.returncode == 0:
            return ""
        why = f"it took longer than {check.timeout_seconds:g} s" if late else f"exit status {child.returncode}"
        printed = child.tail.decode("utf-8", errors="replace")
        if check.executes and (advice := visible.hint(printed, cell.task.run.packages)):
            why += f"; {advice}"
        output = short_tracebacks(printed)[-EXCERPT:]
        return f"{why}\n{plain(sound(output)).strip()}".strip()
    finally:
        child.end()
        cell.done_with(child.folder)


async def _ended(child: Child, seconds: float, stopped: Callable[[], RunFailedError | None]) -> tuple[RunFailedError | None, bool]:
    """Waits for it: why it must end before it has, and whether its time is up."""
    stop: RunFailedError | None = None
    with anyio.move_on_after(seconds) as patience:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.pump)
            while child.returncode is None and not (stop := stopped()):
                await child.wait()
            tasks.cancel_scope.cancel()
    return stop, patience.cancelled_caught
