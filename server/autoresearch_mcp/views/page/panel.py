"""The panel inside the chat: one page without a server of its own, joined from the files of the page, and the night it reads."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch_mcp.loop.session import Session

if TYPE_CHECKING:
    from autoresearch_mcp.views.page.content import Now

FILES = Path(__file__).parent
SCRIPTS = ("dom.js", "chart.js", "curves.js", "panel.js")  # each uses those before it
STYLES = ("vendor/uPlot.min.css", "page.css")
MOST = 500  # experiments that it shows beside the kept ones, the latest
_LINK = re.compile(r"^import .*\n|^export (?=const|function|class|async)", re.MULTILINE)


@lru_cache(maxsize=1)
def panel() -> str:
    """The page: scripts and styles stand in it, since a chat's frame may fetch nothing."""
    frame = (FILES / "templates" / "panel.html").read_text(encoding="utf-8")
    parts = {
        "style": _joined(STYLES),
        "library": _joined(["vendor/uPlot.iife.min.js"]),
        "script": _LINK.sub("", _joined(SCRIPTS)),
    }
    for name, text in parts.items():
        frame = frame.replace(f"{{{{ {name} }}}}", text)
    return frame


def _joined(names: list[str] | tuple[str, ...]) -> str:
    return "\n".join((FILES / "static" / name).read_text(encoding="utf-8") for name in names)


class Night:
    """What the panel draws, of one session. An agent may read it: it holds what tools tell, and nothing that a human has asked."""

    def __init__(self, session: Session):
        self._session = session
        self._now: Now | None = None
        self._made: tuple[int, str] = (-1, "")

    def told(self) -> str:
        """As JSON. Of what is on only what is new is read, and the rest is made again when the ledger has grown."""
        from autoresearch_mcp.views.page import content  # here, since a server that nobody asks for it starts without

        self._now = self._now or content.Now()
        session, length = self._session, self._session.ledger.length
        if self._made[0] != length:
            state = session.state
            shown = {experiment.number: experiment for experiment in (*state.kept, *state.experiments[-MOST:])}
            rows = [content.row(state, shown[number]) for number in sorted(shown)]
            head = content.head_without_morning(session)
            self._made = (length, json.dumps({"head": head, "fields": content.FIELDS, "rows": rows}, allow_nan=False))
        now = json.dumps(self._now.of(session, [session]), allow_nan=False)
        return f'{self._made[1][:-1]}, "now": {now}}}'
