"""Claude Code, Codex and Gemini CLI, the real programs, drive the server over stdio; only their model is scripted."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoresearch_mcp import connect
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.run import disturbance
from clients import programs
from clients.endpoint import Call, Model, Script, Shown, endpoint
from conftest import TOY, git, open_session

Make = Callable[..., Session]
AGENTS = ["claude-code", "codex"]
OUTPUT_LIMIT = 10_000  # bytes; Codex cuts a tool's output at about 10,000 tokens, Claude Code at 25,000
LONG_RUN = 65  # seconds: longer than the 60 at which clients have cut calls
SLOW = f"import time\ntime.sleep({LONG_RUN})\nopen('result.txt', 'w').write('1.0')\n"
SHARED = TOY.replace("budget_seconds = 20", "budget_seconds = 100\ncpus = 0")
TOOLS = {
    "status", "history", "read_work", "read_reference", "apply_patch", "run_experiment", "get_score", "keep", "discard", "stop_experiment",
    "run_batch", "adopt",
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.needs("npm"), pytest.mark.timeout(900)]  # the first one installs the programs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def answer(shown: Shown) -> dict[str, Any]:
    """The answer in what the model was shown: Claude Code and Codex show the structured one alone, Gemini CLI the text alone."""
    assert not shown.is_error and len(shown.text.encode()) < OUTPUT_LIMIT, shown
    said = re.search(r"^Allowed: ([\w, ]+)\. Next: .+\.$", shown.text, re.MULTILINE)
    content: dict[str, Any] = {"allowed": said[1].split(", ")} if said else json.loads(shown.text[shown.text.index("{") :])
    assert content["allowed"], "every answer says what is allowed, the suggested tool first"
    return content


def whole_loop() -> Script:
    """Baseline, a better change, a worse one, as a model would, by what each answer says."""
    status = answer((yield Call("status")))
    assert status["phase"] == "baseline" and status["allowed"] == ["run_experiment"] and "Raise score" in status["goal"]
    file = answer((yield Call("read_work")))
    assert file["content"] == SLOW
    result = answer((yield Call("run_experiment", {"description": "baseline", "wait_seconds": 2})))
    assert result["status"] == "running" and result["allowed"] == ["get_score", "stop_experiment"]
    result = answer((yield Call("get_score")))
    assert result["status"] == "scored"  # after a minute in one call, because the server knows that this client waits
    assert result["score"] == 1.0 and result["suggestion"] == "keep"
    assert answer((yield Call("keep", {"learned": "it takes its time"})))["allowed"] == ["apply_patch", "read_work"]

    refused = yield Call("apply_patch", {"patch": "@@\n-not a line of the file\n+2\n"})
    assert "does not fit work.py" in refused.text and "Nothing was changed" in refused.text
    patch = (
        f"@@\n-import time\n-time.sleep({LONG_RUN})\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('2.0')\n"
    )
    assert answer((yield Call("apply_patch", {"patch": patch}))) == {"allowed": ["run_experiment", "apply_patch", "discard"]}
    result = answer((yield Call("run_experiment", {"description": "twice the score, at once", "hypothesis": "it can"})))
    assert result["suggestion"] == "keep" and result["gain"] == [1.0]
    early = yield Call("apply_patch", {"patch": patch})
    assert "not allowed" in early.text and "keep" in early.text
    answer((yield Call("keep")))

    worse = "*** Begin Patch\n*** Update File: work.py\n@@\n-open('result.txt', 'w').write('2.0')\n+open('result.txt', 'w').write('1.5')\n*** End Patch\n"
    answer((yield Call("apply_patch", {"patch": worse})))
    result = answer((yield Call("run_experiment", {"description": "less"})))
    assert result["suggestion"] == "discard" and result["allowed"] == ["discard"]
    assert "worse than the best" in (yield Call("keep")).text
    answer((yield Call("discard", {"learned": "less is less"})))
    history = answer((yield Call("history")))
    assert history["counts"] == {"keep": 2, "discard": 1}


async def play(
    agent: str, script: Script, session: Session, home: Path, recipe: bool = False, delay: int = 0, **options: str
) -> tuple[Model, str]:
    """Lets the agent play the script on the session's workspace: with the recipe of `connect`, or with the server named and no more."""
    root, model = session.workspace.root, Model(script)
    quiet = f"{disturbance.SETTING}=100"  # clients start servers without the environment of these tests
    command = ["/usr/bin/env", quiet, sys.executable, "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)]
    if delay:
        command = ["/bin/sh", "-c", f"sleep {delay}; exec {shlex.join(command)}"]
    if recipe:
        connect.write(connect.plan(agent, connect.Server(command), root, home))
    if agent == "claude-code" and recipe:
        ended = await programs.play(agent, model, home, root, *connect.CLIENTS[agent].options, **options)
        assert not ended.errors.strip(), "the client warns about no rule"
    elif agent == "claude-code":
        config = home / "mcp.json"
        config.write_text(json.dumps({"mcpServers": {"autoresearch": {"command": command[0], "args": command[1:]}}}))
        allowed = ["--mcp-config", str(config), "--allowedTools", "mcp__autoresearch__*"]
        ended = await programs.play(agent, model, home, root, *allowed, **options)
    elif recipe:
        ended = await programs.play(agent, model, home, root, *connect.CLIENTS[agent].options)
    else:
        named = f"[mcp_servers.autoresearch]\ncommand = {json.dumps(command[0])}\nargs = {json.dumps(command[1:])}\n"
        more = "".join(f"{name} = {value}\n" for name, value in options.items())
        ended = await programs.play(agent, model, home, root, config=named + more)
    return model, ended.output


@pytest.mark.long
def test_a_whole_loop_at_the_agents_default_settings(toy: Make, tmp_path: Path):
    """Of both agents at once, for most of it is waiting."""
    root = toy(SLOW, SHARED).workspace.root
    played: dict[str, tuple[Session, Model]] = {}

    async def one(agent: str) -> None:
        (home := tmp_path / f"home-{agent}").mkdir()
        session = open_session(shutil.copytree(root, tmp_path / agent, symlinks=True))
        model, _ = await play(agent, whole_loop(), session, home)
        played[agent] = session, model

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            for agent in AGENTS:
                tasks.start_soon(one, agent)

    anyio.run(both)
    for agent in AGENTS:
        examine(*played[agent])


def examine(session: Session, model: Model) -> None:
    assert set(model.tools) == TOOLS
    for tool in model.tools.values():
        assert 20 < len(tool["description"]) < 400
    told = json.dumps(model.requests)
    assert "ui://" not in told and "autoresearch://night" not in told, "the panel in the chat costs a model nothing"
    state = open_session(session.workspace.root).state
    assert [experiment.status for experiment in state.experiments] == ["keep", "keep", "discard"]
    assert state.experiments[0].last and state.experiments[0].last.seconds["training"] > LONG_RUN
    assert [experiment.verdict.learned for experiment in state.experiments if experiment.verdict] == [
        "it takes its time",
        None,
        "less is less",
    ]
    log = git(session.workspace.root, "log", "--format=%s", state.started.branch)
    assert log.splitlines()[:2] == ["twice the score, at once", "baseline"]


def short_loop() -> Script:
    answer((yield Call("status")))
    result = answer((yield Call("run_experiment", {"description": "baseline"})))
    assert result["allowed"] == ["keep"]
    answer((yield Call("keep")))
    answer(
        (yield Call("apply_patch", {"patch": "@@\n-open('result.txt', 'w').write('1.0')\n+open('result.txt', 'w').write('0.5')\n"}))
    )
    answer((yield Call("run_experiment", {"description": "half"})))
    answer((yield Call("discard")))


@pytest.mark.parametrize("agent", [*AGENTS, "gemini"])
def test_with_the_recipe_there_is_no_prompt_and_no_other_tool(agent: str, toy: Make, home: Path):
    def loop_and_stop() -> Script:
        yield from short_loop()
        yield Call("stop_experiment")

    model, output = anyio.run(lambda: play(agent, loop_and_stop(), toy(), home, recipe=True))
    assert set(model.tools) == TOOLS
    assert "No run is on" in model.shown[-1][1].text  # stop_experiment too was let through
    names = {tool["name"] for request in model.requests for tool in request["tools"]}
    if agent == "claude-code":
        assert json.loads(output)["permission_denials"] == []
        others = {name for name in names if not name.startswith("mcp__autoresearch__")}
        # What is left loads tools and reads resources of ours.
        assert others <= {
            "ToolSearch",
            "DeferredToolPlaceholder",
            "ListMcpResourcesTool",
            "ReadMcpResourceTool",
            "ReadMcpResourceDirTool",
        }
    elif agent == "gemini":
        assert names == {f"mcp_autoresearch_{name}" for name in TOOLS}
    else:
        resources = {"list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource"}
        assert names <= {"mcp__autoresearch", *resources}


@pytest.mark.parametrize("agent", [*AGENTS, "gemini"])
def test_a_server_that_is_slow_to_start_is_waited_for(agent: str, toy: Make, home: Path, tmp_path: Path):
    """A cold disk or a busy machine: with the recipe the agents' first request already has all tools. They wait a few seconds, which
    may be too few once, where this machine is that busy.
    """
    looks: list[int] = []
    root = toy().workspace.root
    while 0 not in looks and len(looks) < 3:
        session = open_session(shutil.copytree(root, tmp_path / f"try-{len(looks)}", symlinks=True))
        model, _ = anyio.run(lambda session=session: play(agent, short_loop(), session, home, recipe=True, delay=2))
        assert set(model.tools) == TOOLS
        looks.append(model.looks)
    assert looks[-1] == 0


@pytest.mark.parametrize("agent", AGENTS)
def test_without_the_recipe_a_slow_server_is_found_later(agent: str, toy: Make, home: Path):
    model, _ = anyio.run(lambda: play(agent, short_loop(), toy(), home, delay=4))
    assert set(model.tools) == TOOLS


@pytest.mark.parametrize(("agent", "limit"), [("claude-code", {"MCP_TOOL_TIMEOUT": "2000"}), ("codex", {"tool_timeout_sec": "2"})])
def test_a_wait_that_the_agent_cuts_loses_nothing(agent: str, limit: dict[str, str], toy: Make, home: Path):
    session = toy("import time\ntime.sleep(6)\nopen('result.txt', 'w').write('1.0')\n")

    def cut() -> Script:
        shown = yield Call("run_experiment", {"description": "baseline"})
        assert "time" in shown.text.lower(), shown  # timed out
        result: dict[str, Any] = {"status": "running"}
        while result["status"] == "running":
            result = answer((yield Call("get_score", {"wait_seconds": 1})))
        assert result["score"] == 1.0
        answer((yield Call("keep")))

    anyio.run(lambda: play(agent, cut(), session, home, **limit))
    *before, last = open_session(session.workspace.root).experiment(1).runs
    assert last.ended is not None and last.ended.score == 1.0
    assert all(run.ended is not None and run.ended.disturbed for run in before), "only what others disturbed is made again"


def test_claude_code_shows_the_prompt_as_a_slash_command(toy: Make, home: Path):
    session = toy()
    (session.workspace.root / ".claude").mkdir()

    async def look() -> str:
        root, model = session.workspace.root, Model(short_loop())
        server = connect.Server([sys.executable, "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)])
        connect.write(connect.plan("claude-code", server, root, home))
        async with endpoint(model) as url:
            return (await programs.claude_code(url, home, root, "--output-format", "stream-json", "--verbose")).output

    first = next(json.loads(line) for line in anyio.run(look).splitlines() if '"slash_commands"' in line)
    assert "mcp__autoresearch__research" in first["slash_commands"]
    assert {"name": "autoresearch", "status": "connected"}.items() <= first["mcp_servers"][0].items()


def test_nothing_was_written_outside_of_the_workspace_and_the_home(toy: Make, home: Path, tmp_path: Path):
    before = set(tmp_path.iterdir())
    anyio.run(lambda: play("claude-code", short_loop(), toy(), home, recipe=True))
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"task", "workspace"}
    shutil.rmtree(home)
