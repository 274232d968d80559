"""Claude Code, Codex and Gemini CLI, the real programs, through a night: their model asks, fails, is silent, and works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from autoresearch_mcp.loop.session import Session
from clients import programs
from clients.endpoint import NEVER, Call, Model, Night, Script, endpoint
from conftest import ROOT, open_session, wait_for

STALL = 12.0  # seconds: these programs take three to their first call
PATIENCE = 120.0
OTHERS = {
    "claude-code": {"DeferredToolPlaceholder", "ToolSearch"},
    "codex": {"list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource", "mcp__autoresearch"},
    "gemini": set[str](),
}
"""Tools besides ours that the model is offered: they load tools and read resources of ours."""
TROUBLE = {"claude-code": [529, 429, NEVER], "codex": [429, 529, NEVER], "gemini": [429]}
REASONS = {429: "its model's provider has a limit", 529: "its model's provider has a limit", NEVER: "it stood still"}

pytestmark = [pytest.mark.slow, pytest.mark.needs("npm"), pytest.mark.timeout(900)]  # the first one installs the programs


def looks() -> Script:
    yield Call("status")


def works() -> Script:
    shown = yield Call("run_experiment", {"description": "baseline", "wait_seconds": 20})
    assert not shown.is_error and "scored" in shown.text, shown
    shown = yield Call("keep")
    assert not shown.is_error, shown


async def spend(agent: str, night: Night, session: Session, home: Path) -> str:
    """The night's log, once the latest of its acts is over."""
    root, log = session.workspace.root, session.workspace.state_dir / "night.log"
    last = night.acts[-1]
    assert isinstance(last, Model)
    async with endpoint(night) as url:
        variables = programs.at(url, agent, home, retries=0) | {"PYTHONPATH": os.pathsep.join(sys.path)}
        variables["PATH"] = f"{programs.installed()}{os.pathsep}{variables['PATH']}"
        options = ("--model", programs.GEMINI) if agent == "gemini" else ()
        stall = STALL if NEVER in night.acts else PATIENCE
        command = [
            sys.executable,
            str(ROOT / "tests" / "night" / "spend.py"),
            str(root),
            "1",
            str(stall),
            "status",
            agent,
            *options,
        ]
        process = await anyio.open_process(command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            await anyio.to_thread.run_sync(wait_for, lambda: last.finished and session.state.best, PATIENCE)
            process.send_signal(signal.SIGINT)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
    if last.error is not None:
        raise last.error
    return log.read_text()


def offered(model: Model) -> set[str]:
    """Names of all tools that the model was offered, but ours."""
    names = {str(tool.get("name")) for request in model.requests for tool in request["tools"]}
    return {name for name in names if not name.startswith(("mcp__autoresearch__", "mcp_autoresearch_"))}


@pytest.mark.parametrize("agent", list(OTHERS))
def test_a_night_goes_on_whatever_the_model_does(agent: str, notes: Session, tmp_path: Path):
    """No folder is trusted, nothing is connected beforehand, and nobody answers."""
    home = tmp_path / "home"
    home.mkdir()
    night = Night([Model(looks(), last_words="Shall I go on?"), *TROUBLE[agent], Model(works())])
    log = anyio.run(spend, agent, night, notes, home)
    starts = [line for line in log.splitlines() if " was over after " in line]
    for reason, line in zip(["it asked a question", *(REASONS[trouble] for trouble in TROUBLE[agent])], starts, strict=False):
        assert reason in line, log
    assert "the night is over: it was asked to end" in log
    assert "matches no known tool" not in log and "Ignoring" not in log  # no rule that the client warns about
    state = open_session(notes.workspace.root).state
    assert [experiment.status for experiment in state.experiments] == ["keep"]
    assert all(offered(act) <= OTHERS[agent] for act in night.acts if isinstance(act, Model))
