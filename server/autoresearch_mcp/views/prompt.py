"""What an agent is told at its start: the human's instructions and where the loop stands."""

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.task import PROGRAM
from autoresearch_mcp.views import build, references


def research(session: Session) -> str:
    """The MCP prompt `research`, and the beginning of what `autoresearch-mcp night` starts an agent with."""
    return f"{references.reference_text(session, PROGRAM)}\n\n# Where the loop stands\n\n{build.status(session).text()}"
