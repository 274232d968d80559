"""autoresearch-mcp: an MCP server that runs the keep-or-discard research loop by rules an agent cannot bend."""

__version__ = "0.2.0"
