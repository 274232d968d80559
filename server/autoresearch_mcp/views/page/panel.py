"""The panel inside the chat: one page without a server of its own, joined from the files of the page, and the night it reads."""

import json
import re
from functools import lru_cache
from pathlib import Path

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views.page import content

FILES = Path(__file__).parent
SCRIPTS = ("dom.js", "chart.js", "curves.js", "panel.js")  # each uses those before it
STYLES = ("vendor/uPlot.min.css", "page.css")
MOST = 2000  # experiments that it shows, the latest
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


def night(session: Session) -> str:
    """What the panel draws, as JSON: never with what is sealed."""
    state = session.state
    rows = [content.row(state, experiment) for experiment in state.experiments[-MOST:]]
    told = {"head": content.head(session), "fields": content.FIELDS, "rows": rows, "now": content.Now().of(session, [session])}
    return json.dumps(told, allow_nan=False)
