"""Tokens an agent spends per experiment: with our tools, and by shell as the original's program.md has it, side by side.

    python benchmarks/tokens.py [RANKS]

Claude Code and Codex, the real programs, each play the same loop on the tiny preset both ways (baseline, a better idea, a worse
one, a crash); their model is a script. Counted is what the model writes, names and arguments of its calls, and what the program
shows it of each result. By shell the steps are those of the original: look at git, edit, commit, run, grep, tail after a crash,
note in results.tsv, reset; the edit goes through the program's own editing tool. Both ways an edit says the lines that go and the
lines that come and nothing else, and a description is recorded. What our tools can record beyond that, hypotheses and lessons, is
counted on a line of its own, and so is what an agent reads before it starts, and again whenever its context was compacted. There
the shell's agent reads prepare.py, as the original tells it to; ours can leave it, because no rule depends on its knowing the file.

The tokenizer is o200k_base of tiktoken, which downloads it; RANKS names the file o200k_base.js of the npm package js-tiktoken where
there is no network.
"""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Generator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import anyio
import tiktoken

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from autoresearch_mcp import connect  # noqa: E402
from autoresearch_mcp.create import create  # noqa: E402
from autoresearch_mcp.data import cache_root  # noqa: E402
from autoresearch_mcp.demo import IDEAS, Idea  # noqa: E402
from autoresearch_mcp.loop.patches import apply_patch  # noqa: E402
from autoresearch_mcp.loop.session import Session, open_ledger  # noqa: E402
from clients import programs  # noqa: E402 (the tests' own driver of these programs)
from clients.endpoint import Call, Model, Script, Shown  # noqa: E402

TARGET = 0.5
CODEX_SHOWS = 9000  # characters
READY, BASELINE, NOTES = "getting ready", "baseline", "hypotheses and lessons"
STAGES = (READY, BASELINE, *(idea.description for idea in IDEAS))

Step = Generator[Call, Shown, str]


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
    """Tokens by stage: getting ready, each experiment, and the notes that only our tools take."""

    def __init__(self, encode: tiktoken.Encoding):
        self._encode = encode
        self.stages: dict[str, int] = {}

    def add(self, stage: str, *values: Any) -> None:
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        self.stages[stage] = self.stages.get(stage, 0) + sum(len(self._encode.encode(text)) for text in texts)

    def step(self, stage: str, tool: str, arguments: dict[str, Any], notes: dict[str, str] | None = None) -> Step:
        """Makes a call and counts it with its result, which it returns."""
        shown = yield Call(tool, arguments | (notes or {}))
        self.add(stage, tool, arguments, shown.text)
        if notes:
            self.add(NOTES, notes)
        return shown.text


Change = tuple[list[str], list[str]]
"""Lines of train.py that go, and lines that come in their place."""


def changes(idea: Idea, root: Path) -> list[Change]:
    """What the idea changes, place by place."""
    old = (root / "train.py").read_text().splitlines(keepends=True)
    new = apply_patch(idea.patch, "train.py", "".join(old)).splitlines(keepends=True)
    groups = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(old[i:j], new[k:m]) for kind, i, j, k, m in groups if kind != "equal"]


def hunks(changed: list[Change]) -> str:
    return "".join("".join(["@@\n", *("-" + line for line in old), *("+" + line for line in new)]) for old, new in changed)


def with_our_tools(tally: Tally, root: Path) -> Script:
    def call(tool: str, notes: dict[str, str] | None = None, **arguments: Any) -> Generator[Call, Shown, dict[str, Any]]:
        text = yield from tally.step(stage, tool, arguments, notes)
        assert "{" in text, text
        return json.loads(text[text.index("{") :])

    stage = READY
    yield from call("status")
    yield from call("read_reference", name="program.md")
    yield from call("read_train")
    stage = BASELINE
    yield from call("run_experiment", description=BASELINE)
    yield from call("keep", {"learned": "where we start"})
    for idea in IDEAS:
        stage = idea.description
        yield from call("apply_patch", patch=hunks(changes(idea, root)))
        result = yield from call("run_experiment", {"hypothesis": idea.hypothesis}, description=idea.description)
        yield from call("keep" if result["allowed"][0] == "keep" else "discard", {"learned": idea.learned})


def by_shell(agent: str, tally: Tally, root: Path) -> Script:
    """The loop of program.md in karpathy/autoresearch, each step a call."""

    def shell(command: str) -> Step:
        if agent == "claude-code":
            return (yield from tally.step(stage, "Bash", {"command": command}))
        arguments = {"cmd": command} | ({"yield_time_ms": 30000} if "train.py >" in command else {})
        return (yield from tally.step(stage, "exec_command", arguments))

    def read(name: str) -> Step:
        if agent == "claude-code":
            return (yield from tally.step(stage, "Read", {"file_path": name}))
        first, size = 1, 0  # Codex shows a model that it does not know 10 kB of an output, and cuts its middle out
        lines = (root / name).read_text().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            size += len(line)
            if size > CODEX_SHOWS or number == len(lines):
                yield from shell(f"sed -n {first},{number}p {name}")
                first, size = number + 1, 0
        return ""

    def edit(changed: list[Change]) -> Step:
        if agent == "claude-code":
            for old, new in changed:
                arguments = {"file_path": "train.py", "old_string": "".join(old), "new_string": "".join(new)}
                yield from tally.step(stage, "Edit", arguments)
            return ""
        patch = f"*** Begin Patch\n*** Update File: train.py\n{hunks(changed)}*** End Patch"
        return (yield from shell(f"apply_patch <<'EOF'\n{patch}\nEOF"))

    stage, best = READY, float("inf")
    yield from read("program.md")
    yield from read("prepare.py")
    yield from read("train.py")
    yield from shell("git checkout -b autoresearch/bench")
    yield from shell("printf 'commit\\tval_bpb\\tmemory_gb\\tstatus\\tdescription\\n' > results.tsv")
    for idea in (None, *IDEAS):
        stage = idea.description if idea else BASELINE
        yield from shell("git log --oneline -3")
        if idea:
            yield from edit(changes(idea, root))
            yield from shell(f"git commit -am '{stage}'")
        yield from shell("python train.py > run.log 2>&1")
        shown = yield from shell("grep '^val_bpb:\\|^peak_vram_mb:' run.log")
        score = re.search(r"val_bpb: +(\S+)", shown)
        if score is None:
            assert "has no attribute 'gate'" in (yield from shell("tail -n 50 run.log"))
        value = float(score[1]) if score else 0.0
        status = ("keep" if value < best else "discard") if score else "crash"
        commit = subprocess.check_output(("git", "rev-parse", "--short", "HEAD"), cwd=root, text=True).strip()  # it was told
        yield from shell(f"printf '{commit}\\t{value:.6f}\\t0.0\\t{status}\\t{stage}\\n' >> results.tsv")
        if status == "keep":
            best = value
        else:
            yield from shell("git reset --hard HEAD~1")


async def play(agent: str, ours: bool, folder: Path, tally: Tally) -> None:
    home = folder / "home"
    home.mkdir(parents=True)
    workspace = create(folder / "research", "default", "tiny")
    session = Session.start(workspace, open_ledger(workspace))
    session.data.prepare(workspace.root)
    variables: dict[str, str] = {}
    if ours:
        server = connect.Server(connect.stdio_command(workspace.root))
        connect.write(connect.plan(agent, server, workspace.root, home))
        options = {agent: connect.CLIENTS[agent].options}
        model = Model(with_our_tools(tally, workspace.root))
    else:
        variables = {"AUTORESEARCH_PRESET": "tiny", "AUTORESEARCH_DATA": str(session.data.path)}
        variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        variables |= {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        profile = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        (home / ".profile").write_text(profile)  # which Codex reads, and Claude Code does not
        options = {"claude-code": ("--allowedTools", "Bash,Edit,Read"), "codex": ("--dangerously-bypass-approvals-and-sandbox",)}
        model = Model(by_shell(agent, tally, workspace.root), server=None)
    await programs.play(agent, model, home, workspace.root, *options[agent], **(variables if agent == "claude-code" else {}))
    for tool in model.tools.values() if ours else ():
        tally.add(READY, tool["name"], tool["description"], tool.get("input_schema") or tool["parameters"])


def main(ranks: Path | None) -> None:
    os.environ.setdefault("AUTORESEARCH_CACHE", str(cache_root()))  # the programs get a home of their own, without our data
    encode = encoding(ranks)
    for agent in ("claude-code", "codex"):
        tools, shell = Tally(encode), Tally(encode)
        with tempfile.TemporaryDirectory() as name:
            for folder, tally in (("tools", tools), ("shell", shell)):
                print(f"{agent}: four experiments by {folder}", file=sys.stderr)
                anyio.run(play, agent, tally is tools, Path(name).resolve() / folder, tally)
        print(f"\n{agent:<30}{'our tools':>10}{'by shell':>10}{'ratio':>7}")

        def row(name: str, ours: float, theirs: float, more: str = "") -> None:
            print(f"{name:<30}{ours:>10.0f}{theirs:>10.0f}{ours / theirs:>7.2f}{more}")

        for stage in STAGES:
            row(stage, tools.stages[stage], shell.stages[stage])
        ours, theirs = (sum(tally.stages[stage] for stage in STAGES[1:]) / len(STAGES[1:]) for tally in (tools, shell))
        row("an experiment, mean", ours, theirs, f"   target {TARGET}")
        row(f"  with {NOTES}", ours + tools.stages[NOTES] / len(STAGES[1:]), theirs)
        row("ready and ten of them", tools.stages[READY] + 10 * ours, shell.stages[READY] + 10 * theirs)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
