"""A train.py of the original's shape, moved over by the lines that docs/moving-over.md lists and no others."""

import re
import shutil
from pathlib import Path

import anyio
import pytest

from autoresearch_mcp.create import create
from autoresearch_mcp.task import parse_task
from conftest import ROOT, connect, open_session, text_of

ORIGINAL = Path(__file__).with_name("original_shape.py")
PAGE = ROOT / "docs" / "moving-over.md"
BUDGET, PATIENCE = 4, 100  # seconds; the original's loop makes eleven steps whatever the clock says, on any machine


def test_the_page_lists_every_line_that_had_to_change():
    file, page = ORIGINAL.read_text(), PAGE.read_text()
    changed = re.findall(r"# was: (.+)$", file, re.MULTILINE)
    added = re.findall(r"^(.+?)  # new$", file, re.MULTILINE)
    assert len(changed) > 5 and added
    assert "\n".join(added) in page
    assert not [line for line in changed if f"`{line}`" not in page]
    (attention,) = re.findall(r"```python\n(def flash_attn_func.+?)```", page, re.DOTALL)
    assert attention in re.sub(r"  # was: .+", "", file)


def test_its_way_to_say_that_the_loss_exploded_has_a_name():
    patterns = parse_task((ROOT / "harness" / "autoresearch.toml").read_text(), "autoresearch.toml").failures
    assert re.search(patterns["nan"], "step 00012 (3.1%) | loss: 120.1 | remaining: 290s    FAIL\n")
    assert not re.search(patterns["nan"], "FAILED to do something\nFAIL: x\n")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_to_a_recorded_score(tmp_path: Path):
    task = tmp_path / "task"
    shutil.copytree(ROOT / "harness", task, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ORIGINAL, task / "train.py")
    toml = (task / "autoresearch.toml").read_text()
    patient = toml.replace("budget_seconds = 8\n", f"budget_seconds = {BUDGET}\n").replace(
        "startup_seconds = 30\ngrace_seconds = 10\n", f"startup_seconds = {PATIENCE}\ngrace_seconds = {PATIENCE}\n"
    )
    assert patient != toml
    (task / "autoresearch.toml").write_text(patient)
    root = create(tmp_path / "workspace", str(task), "tiny").root
    open_session(root).data.prepare(root)
    answer = anyio.run(baseline, root)

    score = float(str(answer["score"]))
    assert 0.5 < score < 9  # untrained it has 4 to 6; how far it came depends on the machine
    row = (root / "results.tsv").read_text().splitlines()[1].split("\t")
    assert row[1] == f"{score:.6f}" and row[3] == "keep"


async def baseline(root: Path) -> dict[str, object]:
    """The answer on the file as it is, run and kept."""
    async with connect(root) as client:
        result = await client.call_tool("run_experiment", {"description": "baseline", "wait_seconds": 1})
        while (result.structured_content or {}).get("status") == "running":
            result = await client.call_tool("get_val_bpb", {"wait_seconds": 60})
        answer = dict(result.structured_content or {})
        assert answer.get("status") == "scored", text_of(result)
        log = text_of(await client.call_tool("read_reference", {"name": "log:1"}))
        *_, latest = answer.get("runs") or [answer["score"]]  # the baseline runs several times; the log is the last one's
        assert f"val_bpb:          {float(str(latest)):.6f}" in log and "num_steps:" in log, log
        kept = await client.call_tool("keep", {"learned": "the original's file moves over"})
        assert not kept.is_error, text_of(kept)
    return answer
