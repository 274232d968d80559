"""Plays a night and writes it into replay.md, its results.tsv and its picture beside this file: what a night looks like, on the
real thing.

    .venv/bin/python docs/replay.py {plain,shipped} [--preset cpu] [--ideas N] [--out DIR]

A scripted MCP client over stdio, no AI: it tries ideas one after the other, and does what the server's verdict says. Everything it
drives is real. `plain` begins with train.py set back to plain settings (START) and tries the ideas by which train.py was made;
`shipped` begins with train.py as it is and tries what the public record of such nights has besides. A run of the preset cpu takes
75 s, so each takes half an hour or more; the machine should do nothing else.
"""

import argparse
import difflib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
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
sys.path.append(str(HERE.parent / "benchmarks"))
from ablation import WITH, WITHOUT, changed  # noqa: E402

Idea = tuple[str, dict[str, str], str]
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
IDEAS: Sequence[Idea] = (
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
"""What it is called, the edits of train.py, and why."""
FURTHER: Sequence[Idea] = tuple(
    (name, (WITHOUT | WITH)[name], why)
    for name, why in {
        "128 channels": "the number of steps may be short again",
        "twice the rows for pairs": "fewer pairs then share a row",
        "embeddings of three tokens too": "three say more than two, if they come again",
        "a share of the token before": "pairs for nothing, by a sum",
        "the first embedding taken back at the end": "what the token itself was is no help in telling the next",
        "first embedding's share 0.05": "one layer has little use for it",
        "queries and keys times 1.15": "sharper attention",
        "matrices begin at 0.68": "smaller weights leave the first steps to the embeddings",
        "rate ends at 0.05 of its full value": "the last steps do nothing at a rate of 0",
        "weight decay 0.01 of embeddings and head": "tables overfit what is rare",
        "the head's betas (0.9, 0.95)": "the head's gradient is not sparse",
        "Muon's momentum from 0.85, in 100 steps": "early gradients are soon out of date",
        "Muon's updates evened out by row": "no neuron then learns more slowly than others",
        "weight decay only where it helps the step": "decay that works against the gradient is lost work",
        "Muon's momentum to 0.85 in the last tenth": "the last steps shall settle",
        "rotary positions, base 200,000": "slow rotations tell far tokens apart",
        "two layers, the first sees an eighth": "what is near is enough for the first of two layers",
        "half the context in the first third": "near tokens are learned first, and cheaper",
        "a tenth of the loss of the token after next": "more signal from each token",
    }.items()
)
"""The same; edits of more than constants are those that the ablation measures."""


def patch(old: str, new: str) -> str:
    """A unified diff of train.py."""
    lines = (text.splitlines(keepends=True) for text in (old, new))
    return "".join(difflib.unified_diff(*lines, "a/train.py", "b/train.py"))


def set_back(workspace: Workspace) -> None:
    """The starting file, committed as a person would."""
    path = workspace.root / "train.py"
    path.write_text(changed(path.read_text(), START))
    workspace.run("commit", "-qam", "Plain settings to begin with")


async def play(root: Path, ideas: Sequence[Idea]) -> list[dict[str, Any]]:
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
        for description, edits, hypothesis in ideas:
            text = (await call("read_train"))["content"]
            try:
                wanted = changed(text, edits)
            except LookupError:
                print(f"{description}: does not go together with what was kept", file=sys.stderr)
                continue
            await call("apply_patch", patch=patch(text, wanted))
            await judged("as the score says", description=description, hypothesis=hypothesis)
    return answers


HEAD = """# Nights, replayed

For whoever wants to see a night before having one: two, played by a script in the place of an agent (`docs/replay.py`, no AI in
it). Verdicts and repeats are the server's. The tables count the runs that a score is the mean of, not one that was disturbed.
"""
TITLES = {
    "plain": (
        "From plain settings",
        "It began with plain settings and tried the ideas by which train.py was made, and some that did not help.",
    ),
    "shipped": (
        "From train.py as it is",
        "It began with train.py as it is and tried what the public record of such nights has besides.",
    ),
}


def section(session: Session, begins: str, preset: str, minutes: float) -> str:
    state = session.state
    last = state.experiments[0].last
    assert last is not None
    kept = sum(experiment.kept for experiment in state.experiments)
    runs = sum(len(experiment.runs) for experiment in state.experiments)
    rows = ["| experiment | val_bpb | runs | verdict | why |", "|---|---|---|---|---|"]
    for experiment in state.experiments:
        score = f"{experiment.score:.4f}" if experiment.score is not None else "-"
        reason = experiment.verdict.reason if experiment.verdict else ""
        counted = sum(run.counts for run in experiment.runs)
        said = f"| {experiment.committed.description} | {score} | {counted} | {experiment.status} |"
        rows.append(f"{said} {reason.replace('|', '/')} |")
    title, what = TITLES[begins]
    return f"""
## {title}

{what}
{len(state.experiments)} experiments in {minutes:.0f} minutes, {kept} kept, {runs} runs of the preset `{preset}` on
{last.hardware}, {date.today()}. The record as the server wrote it: [replay-{begins}.tsv](replay-{begins}.tsv).

![Every experiment, the kept ones named, and the running best](pictures/replay-{begins}.png)

{chr(10).join(rows)}
"""


def written(page: str, begins: str, new: str) -> str:
    """The page with a new section in the place of the old one."""
    parts = dict.fromkeys(TITLES, "")
    for begin, (title, _) in TITLES.items():
        if found := re.search(rf"\n## {title}\n.*?(?=\n## |\Z)", page, re.DOTALL):
            parts[begin] = found[0]
    return HEAD + "".join((parts | {begins: new}).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("begins", choices=TITLES)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--ideas", type=int, default=len(IDEAS) + len(FURTHER))
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(create(Path(folder) / "night", "default", arguments.preset).root)
        if arguments.begins == "plain":
            set_back(workspace)
        session = Session.start(workspace, open_ledger(workspace))
        session.data.prepare(workspace.root)
        anyio.run(play, workspace.root, (IDEAS if arguments.begins == "plain" else FURTHER)[: arguments.ideas])
        session.refresh()
        (arguments.out / "pictures").mkdir(exist_ok=True)
        draw(session.state, arguments.out / "pictures" / f"replay-{arguments.begins}.png")
        shutil.copy(session.results.path, arguments.out / f"replay-{arguments.begins}.tsv")
        page = arguments.out / "replay.md"
        new = section(session, arguments.begins, arguments.preset, (time.monotonic() - began) / 60)
        page.write_text(written(page.read_text() if page.exists() else "", arguments.begins, new))


if __name__ == "__main__":
    main()
