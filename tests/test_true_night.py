"""A night through MCP: a client that does only what the first allowed step says, a score with noise, and a true morning."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoresearch_mcp.create import create
from conftest import TOY, connect, open_session, text_of

NOISY = """
import os, random
noise = random.Random(f"{os.environ['AUTORESEARCH_SEED']} {open('work.py').read()}")
CHANGE, GAIN = 0, 0
open("result.txt", "w").write(str(100 + GAIN + noise.gauss(0, 1)))
"""
CHANGES = 14
HELPS = {5: 5, 9: 5, 13: 5}  # by how many noise units, of which changes; the others change nothing


@pytest.mark.long
@pytest.mark.slow
def test_a_night_that_concludes_nothing_false(tmp_path: Path):
    task = tmp_path / "task"
    task.mkdir()
    (task / "autoresearch.toml").write_text(TOY.replace('confidence = "single"\n', ""))
    (task / "score.py").write_text("print(open('result.txt').read())\n")
    (task / "work.py").write_text(NOISY)
    root = create(tmp_path / "workspace", str(task)).root
    calls, verdicts = anyio.run(played, root)
    session = open_session(root)
    state = session.state
    assert state.baseline is not None and len(state.baseline.scores) >= 3
    kept = [change for change, verdict in verdicts.items() if change and verdict == "keep"]
    assert set(kept) <= set(HELPS) and len(kept) >= 2, verdicts
    total = state.standing.total
    assert total is not None
    low, high = total.interval()
    assert low <= sum(HELPS[change] for change in kept) <= high
    assert calls["run_experiment"] == CHANGES + 1, "repeats are made by the server, in the same call"
    runs = sum(len(experiment.runs) for experiment in state.experiments)
    assert CHANGES + 3 < runs < 4 * CHANGES
    table = session.results.text().splitlines()
    assert all(len(line.split("\t")) == 9 for line in table)


async def played(root: Path) -> tuple[Counter[str], dict[int, str]]:
    """Calls by tool, and the verdict on each change."""
    calls: Counter[str] = Counter()
    verdicts: dict[int, str] = {}
    async with connect(root) as client:

        async def call(tool: str, /, **arguments: object) -> dict[str, Any]:
            calls[tool] += 1
            result = await client.call_tool(tool, arguments)
            assert not result.is_error and result.structured_content is not None, text_of(result)
            return result.structured_content

        change, answer = 0, await call("status")
        while True:
            match answer["allowed"][0]:
                case "run_experiment":
                    answer = await call("run_experiment", description=f"change {change}", wait_seconds=120)
                case "apply_patch":
                    if change == CHANGES:
                        return calls, verdicts
                    change += 1
                    answer = await call("apply_patch", patch=patch((await call("read_work"))["content"], change))
                case "keep" | "discard" as verdict:
                    verdicts[change] = verdict
                    answer = await call(verdict)
                case step:
                    answer = await call(step, wait_seconds=120)


def patch(text: str, change: int) -> str:
    line = next(line for line in text.splitlines() if line.startswith("CHANGE"))
    found = re.search(r"= \d+, (\d+)", line)
    assert found is not None
    after = f"CHANGE, GAIN = {change}, {int(found[1]) + HELPS.get(change, 0)}"
    return f"<<<<<<< SEARCH\n{line}\n=======\n{after}\n>>>>>>> REPLACE\n"
