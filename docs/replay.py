"""Plays a night and writes replay.md, its results.tsv and its picture beside this file: what a night looks like, on the real thing.

    .venv/bin/python docs/replay.py [--preset cpu] [--ideas N] [--out DIR]

A scripted MCP client over stdio, no AI: it begins with train.py set back to plain settings (START), tries the ideas by which
train.py was made and some that did not help, one after the other, and does what the server's verdict says. Everything it drives is
real. A run of the preset cpu takes 75 s, so the whole takes half an hour or more; the machine should do nothing else.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.views.plot import draw
from autoresearch_mcp.workspace import Workspace

HERE = Path(__file__).parent
START = {
    "DEPTH": "4",
    "HEAD_DIM": "64",
    "POSITIONS": '"rotary"',
    "BIGRAMS": "0",
    "LOGIT_CAP": "15.0",
    "TOTAL_BATCH_SIZE": "2**14",
    "EMBEDDING_LR": "0.3",
    "ADAM_BETAS": "(0.8, 0.95)",
    "WARMDOWN_RATIO": "0.5",
}
IDEAS = (
    ("half the batch", {"TOTAL_BATCH_SIZE": "2**13"}, "so short a run is limited by its number of steps"),
    ("two layers", {"DEPTH": "2"}, "twice the steps are worth more than two layers"),
    ("half the batch again", {"TOTAL_BATCH_SIZE": "2**12"}, "the number of steps may still be what is short"),
    ("embeddings of pairs of tokens", {"BIGRAMS": "16384"}, "pairs say more than tokens, and looking them up costs no time"),
    ("logits without a cap", {"LOGIT_CAP": "0.0"}, "the loss then goes through the tokens in chunks, which is faster on a CPU"),
    ("256 channels", {"MODEL_DIM": "256"}, "a wider model learns more from each token"),
    ("one layer", {"DEPTH": "1"}, "half the time a step is worth more than the second layer"),
    ("slopes instead of rotations", {"POSITIONS": '"slopes"'}, "near tokens matter most, and a bias is cheaper than rotating"),
    ("warm-down over three quarters", {"WARMDOWN_RATIO": "0.75"}, "short runs gain from an early and long decay"),
    ("embeddings' rate doubled", {"EMBEDDING_LR": "0.6"}, "rare tokens are seen a few times only"),
    ("heads of 32", {"HEAD_DIM": "32"}, "more heads look at more places"),
    ("Muon's rate doubled", {"MATRIX_LR": "0.04"}, "the original trains at this rate"),
)


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{name} = "))


def patch(text: str, constants: dict[str, str]) -> str:
    """SEARCH/REPLACE blocks that give the constants other values."""
    blocks = list[str]()
    for name, value in constants.items():
        old = line_of(text, name)
        comment = f"  #{old.partition('  #')[2]}" if "  #" in old else ""
        blocks.append(f"<<<<<<< SEARCH\n{old}\n=======\n{name} = {value}{comment}\n>>>>>>> REPLACE\n")
    return "".join(blocks)


def set_back(workspace: Workspace) -> None:
    """The starting file, committed as a person would."""
    path = workspace.root / "train.py"
    text = path.read_text()
    for name, value in START.items():
        text = re.sub(rf"^{name} = .*?(  #.*)?$", rf"{name} = {value}\1", text, count=1, flags=re.MULTILINE)
    path.write_text(text)
    workspace.run("commit", "-qam", "Plain settings to begin with")


async def play(root: Path, ideas: int) -> list[dict[str, Any]]:
    """The last answer on each experiment."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)],
        env=dict(os.environ),
    )
    answers = list[dict[str, Any]]()
    async with Client(stdio_client(server)) as client:

        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(name, arguments)
            if answer.is_error:
                raise SystemExit(f"{name} was refused: {answer.content}")
            return answer.structured_content or {}

        async def decided(**arguments: Any) -> dict[str, Any]:
            """The answer that a verdict can be given on: the server makes the runs that it wants by itself."""
            answer = await call("run_experiment", **arguments, wait_seconds=60)
            while answer["status"] == "running" or answer.get("suggestion") == "repeat":
                answer = await call("get_val_bpb", wait_seconds=60)
            return answer

        async def judged(learned: str, **arguments: Any) -> None:
            answer = await decided(**arguments)
            verdict = "keep" if answer.get("suggestion") == "keep" else "discard"
            answers.append(await call(verdict, learned=learned) | answer)
            told = f"{arguments['description']}: {answer.get('score')}, {verdict}; {answer.get('reason', '')}"
            print(f"{time.strftime('%H:%M')} {told}", file=sys.stderr, flush=True)

        await judged("where it starts", description="baseline")
        for description, constants, hypothesis in IDEAS[:ideas]:
            text = (await call("read_train"))["content"]
            await call("apply_patch", patch=patch(text, constants))
            await judged("as the score says", description=description, hypothesis=hypothesis)
    return answers


def page(session: Session, preset: str, minutes: float) -> str:
    state = session.state
    last = state.experiments[0].last
    assert last is not None
    kept = sum(experiment.kept for experiment in state.experiments)
    runs = sum(len(experiment.runs) for experiment in state.experiments)
    rows = ["| experiment | val_bpb | runs | verdict | why |", "|---|---|---|---|---|"]
    for experiment in state.experiments:
        score = f"{experiment.score:.4f}" if experiment.score is not None else "-"
        reason = experiment.verdict.reason if experiment.verdict else ""
        said = f"| {experiment.committed.description} | {score} | {len(experiment.runs)} | {experiment.status} |"
        rows.append(f"{said} {reason.replace('|', '/')} |")
    return f"""# A night, replayed

For whoever wants to see a night before having one: {len(state.experiments)} experiments in {minutes:.0f} minutes, {kept} kept,
{runs} runs of the preset `{preset}` on {last.hardware}, {date.today()}. A script played the agent
(`docs/replay.py`, no AI in it): it began with plain settings and tried the ideas by which train.py was made, and some that did not
help, one after the other. Verdicts and repeats are the server's. The record as the server wrote it:
[replay-results.tsv](replay-results.tsv).

![Every experiment, the kept ones named, and the running best](pictures/replay.png)

{chr(10).join(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--ideas", type=int, default=len(IDEAS))
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(create(Path(folder) / "night", "default", arguments.preset).root)
        set_back(workspace)
        session = Session.start(workspace, open_ledger(workspace))
        session.data.prepare(workspace.root)
        anyio.run(play, workspace.root, arguments.ideas)
        session.refresh()
        (arguments.out / "pictures").mkdir(exist_ok=True)
        draw(session.state, arguments.out / "pictures" / "replay.png")
        shutil.copy(session.results.path, arguments.out / "replay-results.tsv")
        (arguments.out / "replay.md").write_text(page(session, arguments.preset, (time.monotonic() - began) / 60))


if __name__ == "__main__":
    main()
