"""Entry point of the bundle for desktop clients: `npx @anthropic-ai/mcpb pack mcpb` makes it."""

from autoresearch_mcp.cli import main

main()
