"""What keeps a run away from everything but its own folder.

So far nothing is enforced: the level is `none`, it is recorded as such, and a task that demands more is refused. What holds
at this level is a cleared environment, a folder of its own, no data file by name, and the end of every process it started.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp.run.limits import MARK
from autoresearch_mcp.task import LEVELS, Task


@dataclass(frozen=True)
class Enforcement:
    level: str
    explanation: str
    advice: str


def detect() -> Enforcement:
    """The strongest level this machine can enforce."""
    return Enforcement(
        "none",
        "runs are separate processes with a cleared environment, but can read what your user can read",
        "connect only agents you trust with this machine, or run the server as a user of its own",
    )


def refusal(task: Task) -> str | None:
    """Why the task may not run here; None where it may."""
    here = detect()
    if LEVELS.index(here.level) >= LEVELS.index(task.sandbox.minimum):
        return None
    return (
        f"the task demands sandbox level {task.sandbox.minimum}, and this machine enforces {here.level}: "
        f"{here.advice}, or lower sandbox.minimum in autoresearch.toml"
    )


def environment(work: Path, mark: str, **extra: str) -> dict[str, str]:
    """A run's whole environment: nothing of the server's own but where programs and the accelerator are found."""
    passed = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME", "SYSTEMROOT")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    own = {
        "HOME": str(work),
        "TMPDIR": str(work / "tmp"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "VIRTUAL_ENV": sys.prefix,
        MARK: mark,
    }
    return kept | own | extra
