"""A call of a tool is a sign of life that other processes see."""

import anyio
import pytest

from autoresearch_mcp.loop.activity import last_call, note_call
from autoresearch_mcp.loop.session import Session
from conftest import connect, open_session


@pytest.mark.slow
def test_every_call_is_noted_refused_ones_too(notes: Session):
    elsewhere = open_session(notes.workspace.root)
    assert last_call(elsewhere) is None
    seen: list[int | None] = []

    async def go() -> None:
        async with connect(notes.workspace.root) as client:
            await client.list_tools()
            seen.append(last_call(elsewhere))
            for tool in ("status", "keep"):
                await client.call_tool(tool, {})
                seen.append(last_call(elsewhere))
                await anyio.sleep(0.02)  # two ticks of a file system's clock

    anyio.run(go)
    assert seen[0] is None and None not in seen[1:] and len(set(seen)) == 3


def test_sessions_have_a_life_each(notes: Session):
    other = open_session(notes.workspace.root, "other")
    note_call(other)
    assert last_call(notes) is None and last_call(other) is not None
