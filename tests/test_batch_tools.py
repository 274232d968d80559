"""Waves as a client sees them, over stdio."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from mcp.client import Client

from autoresearch_mcp.loop.session import Session
from conftest import TOY, connect, text_of

Make = Callable[..., Session]
WORK = "a = 1.0\nb = 0.0\n\n\n\nd = 0.0\n\n\n\ne = 0.0\nopen('result.txt', 'w').write(str(a + b + d + e))\n"
SHARED = TOY.replace("budget_seconds = 20", "budget_seconds = 20\ncpus = 1")


def entry(name: str, value: str) -> dict[str, str]:
    patch = f"<<<<<<< SEARCH\n{name} = 0.0\n=======\n{name} = {value}\n>>>>>>> REPLACE\n"
    return {"patch": patch, "description": f"{name} is {value}", "hypothesis": "it matters"}


async def ask(client: Client, name: str, **arguments: Any) -> tuple[dict[str, Any], str]:
    answer = await client.call_tool(name, arguments)
    assert not answer.is_error, text_of(answer)
    return answer.structured_content or {}, text_of(answer)


@pytest.mark.slow
def test_a_wave_from_its_start_to_the_merged_winner(toy: Make):
    session = toy(WORK, SHARED)

    async def go() -> None:
        async with connect(session.workspace.root) as client:
            await ask(client, "run_experiment", description="baseline", wait_seconds=60)
            await ask(client, "keep")
            wave = [entry("b", "2.0"), entry("nothing", "1.0"), entry("d", "5.0"), entry("e", "-3.0")]
            said, text = await ask(client, "run_batch", experiments=wave, wait_seconds=60)
            assert [(member["experiment"], member["status"]) for member in said["wave"]] == [
                (3, "keep"),
                (2, "keep"),
                (4, "discard"),
            ]
            assert "entry 2:" in said["note"] and said["allowed"][0] == "keep"
            assert "A wave of 3, the best first:\n  3 6" in text
            one, _ = await ask(client, "get_score", experiment=4)
            assert one["experiment"] == 4 and one["status"] == "discard" and "wave" not in one
            every, _ = await ask(client, "get_score")
            assert every["wave"] == said["wave"]
            kept, text = await ask(client, "keep", learned="d matters most")
            assert set(kept["discarded"]) == {"2"} and "Experiment 2: discard" in text
            merged, _ = await ask(client, "run_experiment", description="b on top of d", combine=[2], wait_seconds=60)
            assert merged["score"] == 8.0 and merged["suggestion"] == "keep"
            await ask(client, "keep")

    anyio.run(go)
    session.refresh()
    assert session.state.best_score == 8.0 and "b = 2.0" in session.read().text


@pytest.mark.slow
def test_a_batch_of_nothing_but_errors_is_an_error_and_no_wave(toy: Make):
    session = toy(WORK, SHARED)

    async def go() -> None:
        async with connect(session.workspace.root) as client:
            early = await client.call_tool("run_batch", {"experiments": [entry("b", "1.0")]})
            assert early.is_error and "baseline comes first" in text_of(early)
            await ask(client, "run_experiment", description="baseline", wait_seconds=60)
            await ask(client, "keep")
            bad = await client.call_tool("run_batch", {"experiments": [entry("nothing", "1.0")]})
            assert bad.is_error and "None of the batch was run. entry 1:" in text_of(bad)
            empty = await client.call_tool("run_batch", {"experiments": []})
            assert empty.is_error
            status, _ = await ask(client, "status")
            assert status["phase"] == "ready" and status["experiments"] == 1

    anyio.run(go)
