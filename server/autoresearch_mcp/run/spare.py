"""What waits for a run that is not known yet: its process, with the task's modules imported, and its scoring command, loaded.

Both are of the run that will have them: started in its own sandbox, where nothing has run before, and used once. So they save a run
the seconds that imports take, and carry nothing from one to the next.
"""

import json
import socket

import anyio

from autoresearch_mcp.errors import RunFailedError
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.scoring import Scoring

PATIENCE = 120.0  # seconds that imports may take


class Spare:
    """Of one run; empty where nothing was made ready."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.control: socket.socket | None = None
        self.scoring: Scoring | None = None

    @property
    def pids(self) -> list[int]:
        """Of its processes: those of the run's supervisor, that it collects itself."""
        children = [self.child, self.scoring.child if self.scoring else None]
        return [child.pid for child in children if child is not None]

    async def ready(self) -> None:
        """Returns when both wait. Raises RunFailedError."""
        assert self.child is not None and self.control is not None
        with anyio.move_on_after(PATIENCE):
            await anyio.wait_readable(self.control)
            if self.control.recv(1):
                if self.scoring is not None:
                    await self.scoring.ready()
                return
        raise RunFailedError("crash", "error", "the modules of run.preload could not be imported")

    def begin(self, argv: list[str], environment: dict[str, str], log: BoundedLog) -> tuple[Child, socket.socket] | None:
        """The waiting process as the run of a file, and our end of its socket; None where none waits."""
        child, control, self.child, self.control = self.child, self.control, None, None
        if child is None or control is None:
            return None
        try:
            pipe = child.process.stdin
            assert pipe is not None
            child.log_to(log)
            pipe.write(json.dumps({"argv": argv, "environment": environment}).encode() + b"\n")
            pipe.close()
            if child.returncode is None:
                return child, control
        except OSError:  # it has died while it waited
            pass
        control.close()
        child.end()
        return None

    def take_scoring(self) -> Scoring | None:
        """The scoring command that waits; None where none does."""
        scoring, self.scoring = self.scoring, None
        if scoring is not None and scoring.child.returncode is not None:
            scoring.end()
            return None
        return scoring

    def close(self) -> None:
        """Ends what still waits. May be called again."""
        if scoring := self.take_scoring():
            scoring.end()
        if self.child is not None and self.control is not None:
            self.control.close()
            self.child.end()
            self.child = self.control = None
