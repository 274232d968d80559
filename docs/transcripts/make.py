"""Writes the transcripts beside this file: Claude Code and Codex, the real programs, run the loop on the default task.

    .venv/bin/python docs/transcripts/make.py

Their model is a script (the ideas of `autoresearch-mcp demo`), so that the page can be made anew by anybody without a key; what
passes between model, program, server and training runs is real.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from autoresearch_mcp import connect  # noqa: E402
from autoresearch_mcp.create import create  # noqa: E402
from autoresearch_mcp.demo import IDEAS  # noqa: E402
from autoresearch_mcp.loop.session import Session, open_ledger  # noqa: E402
from clients import programs  # noqa: E402 (the tests' own driver of these programs)
from clients.endpoint import Call, Model, Script  # noqa: E402

LONGEST = 1500  # characters shown of one answer


def loop() -> Script:
    def result_of(text: str) -> dict[str, Any]:
        return json.loads(text[text.index("{") :])

    yield Call("status")
    yield Call("read_reference", {"name": "program.md"})
    yield Call("read_train", {"start_line": 1, "end_line": 40})
    result = result_of((yield Call("run_experiment", {"description": "baseline"})).text)
    for idea in (None, *IDEAS):
        if idea is not None:
            yield Call("apply_patch", {"patch": idea.patch})
            arguments = {"description": idea.description, "hypothesis": idea.hypothesis}
            result = result_of((yield Call("run_experiment", arguments)).text)
        while result["status"] == "running":
            result = result_of((yield Call("get_val_bpb")).text)
        learned = {"learned": idea.learned if idea else "where we start"}
        yield Call("keep" if result["allowed"][0] == "keep" else "discard", learned)
    yield Call("history")


async def play(agent: str, folder: Path) -> Model:
    home, model = folder / "home", Model(loop())
    home.mkdir()
    workspace = create(folder / "research", "default", "tiny")
    Session.start(workspace, open_ledger(workspace)).data.prepare(workspace.root)
    server = connect.Server(connect.stdio_command(workspace.root))
    connect.write(connect.plan(agent, server, workspace.root, home))
    await programs.play(agent, model, home, workspace.root, *connect.CLIENTS[agent].options)
    return model


def page(agent: str, model: Model, folder: Path) -> str:
    version = json.loads((programs.HERE / "package.json").read_text())["dependencies"]
    package = {"claude-code": "@anthropic-ai/claude-code", "codex": "@openai/codex"}[agent]
    lines = [
        f"# A loop driven by {package} {version[package]}",
        "",
        "Made by `docs/transcripts/make.py`: program, server, training runs and scores are real, on the preset `tiny`; the model",
        "is a script. Each block is a call as the model makes it, and the answer as the program shows it to the model.",
    ]
    for call, shown in model.shown:
        lines += ["", f"## {call.tool}", ""]
        for name, value in call.arguments.items():
            lines += [f"{name}:", "", "```", str(value).rstrip("\n"), "```", ""] if "\n" in str(value) else [f"{name}: {value}", ""]
        text = shown.text.replace(str(folder), "")
        cut = "" if len(text) <= LONGEST else f"\n… {len(text) - LONGEST} characters more"
        lines += ["```", text[:LONGEST].rstrip("\n") + cut, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    for agent in ("claude-code", "codex"):
        with tempfile.TemporaryDirectory(prefix="transcript-") as name:
            folder = Path(name).resolve()
            model = anyio.run(play, agent, folder)
            (Path(__file__).parent / f"{agent}.md").write_text(page(agent, model, folder), encoding="utf-8")


if __name__ == "__main__":
    main()
