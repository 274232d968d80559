"""The human's own commands, run when something happened: [notify] of a task. They get JSON on their input and nothing else from us.

They run outside any sandbox, as the human's, so no word of an agent ever stands in a command line; descriptions and reasons are
values in the JSON, and whoever passes them on quotes them. A hook that fails or hangs is noted and changes nothing.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from autoresearch_mcp.loop import limits
from autoresearch_mcp.record.experiments import ExperimentState
from autoresearch_mcp.record.state import SessionState
from autoresearch_mcp.task import Task, expand
from autoresearch_mcp.workspace import Workspace

Event = Literal["keep", "plateau", "stall", "end"]
PLATEAU = 20  # experiments in a row that did not help
LOG, LOG_BYTES = "notify.log", 1 << 20  # of what hooks print; begun anew when it is full


class Hooks:
    """Of one session."""

    def __init__(self, workspace: Workspace, task: Task, tag: str, state: Callable[[], SessionState]):
        self._root, self._folder, self._task, self._tag, self._state = workspace.root, workspace.state_dir, task, tag, state

    def fire(self, event: Event, content: dict[str, Any], wait: bool = False) -> None:
        """Starts the hook of an event, if there is one; with `wait` it returns when that has ended. `end` is told once a session.
        Raises nothing.
        """
        command = getattr(self._task.notify, f"on_{event}")
        if (event == "end" and not self._once()) or command is None:
            return
        told = {"event": event, "task": self._task.name, "metric": self._task.metric.name, "workspace": str(self._root)}
        told |= {"session": self._tag, "summary": limits.summary(self._state(), self._task)} | content
        seconds = self._task.notify.timeout_seconds
        arguments = (event, expand(command), json.dumps(told), self._root, self._folder / LOG, seconds)
        work = threading.Thread(target=_run, args=arguments, daemon=True)
        work.start()
        if wait:
            work.join(seconds + 1)

    def judged(self, experiments: Sequence[ExperimentState], done: Callable[[], str]) -> None:
        """What the verdicts on these are worth telling; `done` says why the session is over, if it is."""
        state = self._state()
        for kept in [experiment for experiment in experiments if experiment.kept and len(state.kept) > 1]:
            told = {"experiment": kept.number, "description": kept.committed.description, "score": kept.score}
            self.fire("keep", told | {"best": state.best_score})
        discarded = len(experiments) if not any(experiment.kept for experiment in experiments) else 0
        if discarded and state.since_best // PLATEAU > (state.since_best - discarded) // PLATEAU:
            self.fire("plateau", {"since_best": state.since_best, "best": state.best_score})
        if self._task.notify.on_end and (reason := done()):
            self.fire("end", {"reason": reason})

    def _once(self) -> bool:
        """Whether nobody has told of the end of this session before; from now on somebody has."""
        try:
            (self._folder / f"told-end-of-{self._tag}").touch(exist_ok=False)
        except OSError:
            return False
        return True


def _run(event: Event, command: list[str], said: str, root: Path, log: Path, seconds: float) -> None:
    try:
        full = log.exists() and log.stat().st_size > LOG_BYTES
        with open(log, "w" if full else "a", encoding="utf-8") as file, tempfile.TemporaryFile() as given:
            given.write(said.encode())  # no pipe: whoever writes to it may be ended meanwhile
            given.seek(0)
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {event}\n")
            file.flush()
            process = subprocess.Popen(command, cwd=root, stdin=given, stdout=file, stderr=file, start_new_session=True)
            try:
                process.wait(seconds)
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
