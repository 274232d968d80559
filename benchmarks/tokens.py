"""Tokens an agent spends per experiment: with our tools, and by shell as the original's program.md has it, side by side.

    python benchmarks/tokens.py [RANKS]

The same four experiments on the tiny preset (baseline, a better one, a worse one, a crash) run for real both ways. Counted is
what passes between model and tools: the arguments of every call and what the model is shown of its result; for ours that is the
structured answer, which is all that Claude Code and Codex show. Also counted, apart, is what an agent reads before it starts, and
again whenever its context was compacted. The tokenizer is o200k_base of tiktoken, which downloads it; RANKS names the file
o200k_base.js of the npm package js-tiktoken where there is no network.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import tiktoken
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch_mcp.demo import IDEAS
from autoresearch_mcp.patch import apply_patch, unified_diff
from autoresearch_mcp.session import Session, open_ledger
from autoresearch_mcp.workspace import Workspace, create

TARGET = 0.5


def encoding(ranks: Path | None) -> tiktoken.Encoding:
    if ranks is None:
        return tiktoken.get_encoding("o200k_base")
    text = ranks.read_text()
    content = json.loads(text[text.index("{") : text.rindex("}") + 1])
    found: dict[bytes, int] = {}
    for line in content["bpe_ranks"].splitlines():
        _, offset, *tokens = line.split(" ")
        found |= {base64.b64decode(token): int(offset) + i for i, token in enumerate(tokens)}
    return tiktoken.Encoding("o200k_base", pat_str=content["pat_str"], mergeable_ranks=found, special_tokens={})


class Tally:
    """Tokens by stage: getting ready, and each experiment."""

    def __init__(self, encode: tiktoken.Encoding):
        self._encode = encode
        self.stages: dict[str, int] = {}

    def add(self, stage: str, *texts: str) -> None:
        self.stages[stage] = self.stages.get(stage, 0) + sum(len(self._encode.encode(text)) for text in texts)


async def ours(root: Path, tally: Tally) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)], env=dict(os.environ)
    )
    async with Client(stdio_client(server)) as client:
        stage = "ready"

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            shown = json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
            tally.add(
                stage, tool, json.dumps(arguments, ensure_ascii=False), shown if result.structured_content else str(result.content)
            )
            return result.structured_content or {}

        for tool in (await client.list_tools()).tools:
            tally.add("ready", tool.name, tool.description or "", json.dumps(tool.input_schema))
        await call("status")
        await call("read_reference", name="program.md")
        await call("read_train")
        stage = "baseline"
        await call("run_experiment", description="baseline", wait_seconds=240)
        await call("keep", learned="where we start")
        for idea in IDEAS:
            stage = idea.description
            await call("apply_patch", patch=idea.patch)
            result = await call("run_experiment", description=idea.description, hypothesis=idea.hypothesis, wait_seconds=240)
            await call("keep" if result.get("suggestion") == "keep" else "discard", learned=idea.learned)


def by_shell(root: Path, data: Path, tally: Tally) -> None:
    """The loop of program.md in karpathy/autoresearch: git state, edit, commit, run, grep, tsv, and reset or go on."""
    environment = os.environ | {"AUTORESEARCH_PRESET": "tiny", "AUTORESEARCH_DATA": str(data)}
    environment |= {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    stage, best = "ready", float("inf")

    def shell(command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=root, env=environment, capture_output=True, text=True)  # noqa: S602
        output = (done.stdout + done.stderr).strip()
        tally.add(stage, "bash", json.dumps({"command": command}, ensure_ascii=False), output)
        return output

    def experiment(description: str) -> None:
        nonlocal best
        shell(f"git commit -am '{description}'")
        shell(f"{sys.executable} train.py > run.log 2>&1")
        found = shell("grep '^val_bpb:' run.log")
        commit = shell("git rev-parse --short HEAD")
        if not found:
            shell("tail -n 50 run.log")
        score = float(found.split()[-1]) if found else 0.0
        kept = bool(found) and score < best
        best = score if kept else best
        status = "keep" if kept else "discard" if found else "crash"
        shell(f"printf '{commit}\\t{score:.6f}\\t0.5\\t{status}\\t{description}\\n' >> results.tsv")
        if not kept:
            shell("git reset --hard HEAD~1")

    shell("cat program.md")
    shell("cat prepare.py")
    shell("cat train.py")
    shell("git checkout -b autoresearch/bench && git log --oneline -5")
    shell("printf 'commit\\tval_bpb\\tmemory_gb\\tstatus\\tdescription\\n' > results.tsv")
    stage = "baseline"
    shell("git commit --allow-empty -m baseline")
    experiment("baseline")
    for idea in IDEAS:
        stage = idea.description
        shell("git status --short && git log --oneline -3")
        text = (root / "train.py").read_text()
        diff = unified_diff(text, apply_patch(idea.patch, "train.py", text), "train.py")
        shell(f"git apply --unidiff-zero <<'EOF'\n{diff}EOF")
        experiment(idea.description)


def main(ranks: Path | None) -> None:
    encode = encoding(ranks)
    with tempfile.TemporaryDirectory() as folder:
        workspace = create(Path(folder) / "ours", "default", "tiny")
        session = Session(workspace, open_ledger(workspace))
        session.data.prepare(workspace.root)
        tools, shell = Tally(encode), Tally(encode)
        anyio.run(ours, workspace.root, tools)
        by_shell(Workspace(create(Path(folder) / "shell", "default", "tiny").root).root, session.data.path, shell)
    print(f"{'tokens':<24}{'our tools':>10}{'by shell':>10}{'ratio':>8}")
    for stage, count in tools.stages.items():
        print(f"{stage:<24}{count:>10}{shell.stages[stage]:>10}{count / shell.stages[stage]:>8.2f}")
    totals = [sum(count for stage, count in tally.stages.items() if stage != "ready") for tally in (tools, shell)]
    each = [total / (len(IDEAS) + 1) for total in totals]
    print(f"{'an experiment, mean':<24}{each[0]:>10.0f}{each[1]:>10.0f}{each[0] / each[1]:>8.2f}")
    whole = [tally.stages["ready"] + 10 * mean for tally, mean in zip((tools, shell), each, strict=True)]
    print(f"{'ready and ten of them':<24}{whole[0]:>10.0f}{whole[1]:>10.0f}{whole[0] / whole[1]:>8.2f}   target {TARGET}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
