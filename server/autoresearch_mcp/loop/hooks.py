"""The human's own commands, run when something happened: [notify] of a task. They get JSON on their input and nothing else from us.

They run outside any sandbox, as the human's, so no word of an agent ever stands in a command line; descriptions and reasons are
values in the JSON, and whoever passes them on quotes them. A hook that fails or hangs is noted and changes nothing.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Literal

from autoresearch_mcp.task import Task, expand

Event = Literal["keep", "plateau", "stall", "end"]
PLATEAU = 20  # experiments in a row that did not help
LOG, LOG_BYTES = "notify.log", 1 << 20  # of what hooks print; begun anew when it is full


def fire(task: Task, root: Path, state_dir: Path, event: Event, content: dict[str, Any], wait: bool = False) -> None:
    """Starts the hook of an event, if there is one; with `wait` it returns when that has ended. Raises nothing."""
    command = getattr(task.notify, f"on_{event}")
    if command is None:
        return
    said = json.dumps({"event": event, "task": task.name, "metric": task.metric.name, "workspace": str(root), **content})
    work = threading.Thread(
        target=_run, args=(event, expand(command), said, root, state_dir / LOG, task.notify.timeout_seconds), daemon=True
    )
    work.start()
    if wait:
        work.join(task.notify.timeout_seconds + 1)


def once(state_dir: Path, tag: str) -> bool:
    """Whether nobody has told of the end of this session before; from now on somebody has."""
    try:
        (state_dir / f"told-end-of-{tag}").touch(exist_ok=False)
    except OSError:
        return False
    return True


def _run(event: Event, command: list[str], said: str, root: Path, log: Path, seconds: float) -> None:
    try:
        full = log.exists() and log.stat().st_size > LOG_BYTES
        with open(log, "w" if full else "a", encoding="utf-8") as file:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {event}\n")
            file.flush()
            process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True, start_new_session=True
            )
            try:
                process.communicate(said, timeout=seconds)
                note = f"exit status {process.returncode}\n" if process.returncode else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                note = f"it took longer than {seconds:g} s and was ended\n"
            file.write(note)
    except (OSError, ValueError) as error:
        try:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"it cannot be started: {error}\n")
        except OSError:
            return
