"""The protocol's own tools against our HTTP: the conformance suite and the Inspector's command line."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoresearch_mcp.loop.session import Session
from clients import programs
from clients.served import Served, serving

# Those of the suite's scenarios that need no server made for the suite, with tools and resources of its own.
SCENARIOS = [
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
]

pytestmark = [pytest.mark.slow, pytest.mark.needs("npm"), pytest.mark.timeout(900)]  # the first one installs the programs


@pytest.fixture
def served(notes: Session) -> Iterator[Served]:
    with serving(notes) as running:
        yield running


def node(program: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [str(programs.installed() / program), *arguments]
    return subprocess.run(command, env=programs.environment(home), capture_output=True, text=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_conformance(scenario: str, served: Served, tmp_path: Path):
    with served.without_token() as url:
        ended = node("conformance", "server", "--url", url, "--scenario", scenario, home=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    passed = re.search(r"Passed: (\d+)/(\d+)", ended.stdout)
    assert passed and passed[1] == passed[2] != "0", ended.stdout


def test_the_inspector_reads_everything(served: Served, tmp_path: Path):
    def inspect(method: str, *arguments: str) -> dict[str, Any]:
        token = f"Authorization: Bearer {served.token}"
        ended = node(
            "mcp-inspector",
            "--cli",
            served.url,
            "--transport",
            "http",
            "--header",
            token,
            "--method",
            method,
            *arguments,
            home=tmp_path,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(ended.stdout)

    tools = inspect("tools/list")["tools"]
    assert {"read_notes", "apply_patch", "run_experiment", "get_score", "keep", "discard"} <= {tool["name"] for tool in tools}
    called = inspect("tools/call", "--tool-name", "status")
    assert called["structuredContent"]["phase"] == "baseline"
    called = inspect("tools/call", "--tool-name", "read_notes", "--tool-arg", "start_line=1", "end_line=1")
    assert called["structuredContent"]["content"] == "# Notes on the loop\n"
    assert "autoresearch://program" in {resource["uri"] for resource in inspect("resources/list")["resources"]}
    assert "autoresearch://experiments/{number}/diff" in {
        t["uriTemplate"] for t in inspect("resources/templates/list")["resourceTemplates"]
    }
    assert "budget and a metric" in inspect("resources/read", "--uri", "autoresearch://notes")["contents"][0]["text"]
    assert [prompt["name"] for prompt in inspect("prompts/list")["prompts"]] == ["research"]
    assert "Where the loop stands" in inspect("prompts/get", "--prompt-name", "research")["messages"][0]["content"]["text"]


def test_the_inspector_is_refused_without_the_token(served: Served, tmp_path: Path):
    ended = node("mcp-inspector", "--cli", served.url, "--transport", "http", "--method", "tools/list", home=tmp_path)
    assert ended.returncode != 0 and "tools" not in ended.stdout
