"""What is said of a night: lines with their time in a bounded file and on the terminal, and below them one line that moves.

Neither a full disk nor a terminal that was closed ends a night: what cannot be written is lost.
"""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from autoresearch_mcp.text import visible

LIMIT = 1 << 20  # bytes of the file; the one before is kept beside it, as with the server's log
LAST_LINES = 12  # of an agent's output that are kept when it ends
_FRAME = re.compile(r"\s+at .*:\d+:\d+\)?")


class Diary:
    def __init__(self, path: Path, console: Console | None = None):
        self.path = path
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(Text(), console=self._console, auto_refresh=False, transient=True)

    def note(self, text: str) -> None:
        """Writes a line, or several of which the further ones are indented."""
        lines = visible(text).split("\n")
        stamped = "\n".join([f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {lines[0]}", *(f"    {line}" for line in lines[1:])])
        with suppress(OSError):
            if self.path.exists() and self.path.stat().st_size + len(stamped) > LIMIT:
                os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
            with open(self.path, "a", encoding="utf-8", errors="replace") as file:
                file.write(f"{stamped}\n")
        with suppress(OSError):
            self._console.print(Text(stamped))

    def show(self, line: str) -> None:
        """The line that moves, where there is a terminal."""
        if self._live is None:
            return
        try:
            if not self._live.is_started:
                self._live.start()
            self._live.update(Text(visible(line), overflow="ellipsis", no_wrap=True), refresh=True)
        except OSError:  # the terminal was closed
            self._live = None

    def close(self) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()


def last_lines(output: str) -> str:
    """The end of an agent's output as further lines of a note, without the frames of Node's tracebacks, which tell nothing here."""
    lines = [line for line in output.split("\n") if line.strip() and not _FRAME.match(line)]
    return "".join(f"\n| {line[:300]}" for line in lines[-LAST_LINES:])
