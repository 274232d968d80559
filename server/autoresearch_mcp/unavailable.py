"""What a client is told of a workspace that cannot be served: a server all the same, whose one tool says why and what to do.

A server that ended with a message would be `Connection closed` to its client, and nobody reads the stderr of what a client started.
"""

from collections.abc import Callable

from mcp.server.mcpserver import MCPServer

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.text import visible

MENDED = "The workspace can be served now. Ask your human to connect this server again: then its tools are there."


def build_unavailable(reason: str, attempt: Callable[[], object]) -> MCPServer:
    """A server that cannot serve, because of `reason`. `attempt` raises AutoresearchError while it still cannot."""
    told = f"This server cannot work yet. {reason} No experiment can be run before that; tell your human."
    server = MCPServer("autoresearch", version=__version__, instructions=visible(told))

    @server.tool(name="status", description="Why this server cannot work yet, and what a human must do.", structured_output=False)
    def status() -> str:
        try:
            attempt()
        except AutoresearchError as error:
            return visible(f"This server cannot work yet. {error} Tell your human, then call status again.")
        return MENDED

    return server
