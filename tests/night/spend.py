"""A night in a process of its own, with pauses of a fraction of a second: spend.py FOLDER HOURS STALL MORNING COMMAND...

STALL, a number of seconds, with "+" behind it counts from when a run has been on. COMMAND may be the name of a client. It is what `autoresearch-mcp night` does, but that one command, MORNING, is all of the morning.
"""

import math
import sys
from pathlib import Path

from autoresearch_mcp import connect
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.night import agent, night, patience, recipes

patience.AT_ONCE, patience.FIRST_PAUSE, patience.LIMIT_PAUSE = 0.1, 0.05, 0.3
agent.GRACE = 1.0
night.LOOK = 0.1


class Patient(night.Night):
    """Its stall is a few seconds, in which a busy machine starts no agent: it counts once a run has been on."""

    def _look(self) -> night.Seen:
        seen = super()._look()
        self.stall = seconds if seen.running or self.stall == seconds else math.inf
        return seen


serve = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "serve", "--workspace"]
connect.stdio_command = lambda workspace: [*serve, str(workspace)]  # of this checkout, whatever is installed

if __name__ == "__main__":
    folder, hours, stall, morning, *command = sys.argv[1:]
    seconds = float(stall.rstrip("+"))
    if stall.endswith("+"):
        night.Night = Patient
        stall = "inf"
    client = command.pop(0) if command[0] in recipes.RECIPES else None
    try:
        night.run_night(Path(folder), None, client, command, float(hours), float(stall), ((morning,),))
    except AutoresearchError as error:
        raise SystemExit(str(error)) from error
