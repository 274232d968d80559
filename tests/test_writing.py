"""Writing a task: what new-task makes runs at once, changes nothing that is there, and a client of a broken workspace hears why."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import tomlkit
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent

from autoresearch_mcp import doctor
from autoresearch_mcp.cli import app
from autoresearch_mcp.connect import NAME, Server, skill
from autoresearch_mcp.create import create
from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.loop.session import open_ledger
from autoresearch_mcp.loop.trial import run_trial
from autoresearch_mcp.new_task import Wish, command_of, files_of, write
from autoresearch_mcp.task import parse_task
from autoresearch_mcp.views.programs import programs
from autoresearch_mcp.workspace import Workspace
from conftest import TOY, git, open_session, replace, run


def call(*arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


@pytest.mark.slow
def test_a_task_from_nothing_is_whole_and_passes_doctor(tmp_path: Path):
    call("new-task", str(tmp_path / "my notes!"))
    trial = run_trial(tmp_path / "my notes!")
    assert trial.scores and trial.runs[0].ended.details
    workspace = create(tmp_path / "workspace", str(tmp_path / "my notes!"))
    levels = {check.name: check.level for check in doctor.examine(workspace.root)}
    assert levels["workspace"] == levels["metric"] == "ok"


def test_a_task_for_a_file_that_is_there_changes_nothing(tmp_path: Path):
    (tmp_path / "sort.py").write_text("print(3)\n")
    (tmp_path / "measure.py").write_text("print(len(open('out.txt').read()))\n")
    call(
        "new-task", str(tmp_path), "--file", "sort.py", "--metric", "time_ms", "--direction", "minimize", "--goal", 'Faster "sort"',
        "--score", "python measure.py", "--run", "sh -c 'python sort.py > out.txt'", "--output", "out.txt", "--budget", "5", "--unit", "ms",
    )  # fmt: skip
    task = parse_task((tmp_path / "autoresearch.toml").read_text())
    assert task.files.read_only == ["measure.py"] and task.metric.unit == "ms" and task.run.outputs == ["out.txt"]
    assert task.run.command == ["{sh}", "-c", "python sort.py > out.txt"]
    assert run_trial(tmp_path).scores == [2]
    assert (tmp_path / "sort.py").read_text() == "print(3)\n" and "`time_ms`: smaller is better" in (
        tmp_path / "program.md"
    ).read_text()
    with pytest.raises(TaskError, match="already"):
        call("new-task", str(tmp_path), "--file", "sort.py")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("python a.py 'x y'", ["{python}", "a.py", "x y"]),
        ("node a.js", ["{node}", "a.js"]),
        ("./score", ["./score"]),
        ("{python} a.py", ["{python}", "a.py"]),
    ],
)
def test_commands_as_typed(line: str, command: list[str]):
    assert command_of(line) == command


@pytest.mark.parametrize("wrong", [{"metric": "a b"}, {"direction": "up"}, {"score": "'"}, {"file": "../x"}])
def test_a_wish_that_makes_no_task_leaves_nothing(tmp_path: Path, wrong: dict[str, str]):
    wish = {"name": "n", "goal": "g", "file": "notes.md", "metric": "score", "direction": "maximize"} | wrong
    with pytest.raises(TaskError):
        write(tmp_path, files_of(tmp_path, Wish(**wish)))
    assert not list(tmp_path.iterdir())


def test_any_text_makes_a_task_that_reads_the_same(tmp_path: Path):
    goal = 'Say "no" to C:\\new and ' + "tabs\t\x7f and {braces}"
    added = files_of(tmp_path, Wish("n", goal, "a.md", "score", "maximize"))
    assert tomlkit.parse(added["autoresearch.toml"])["goal"] == goal


def test_a_client_of_a_workspace_that_cannot_be_served_hears_why(tmp_path: Path):
    call("new-task", str(tmp_path))
    git(tmp_path, "init", "-q")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "none", "--allow-empty")
    server = StdioServerParameters(command=sys.executable, args=["-P", "-m", "autoresearch_mcp.cli", "serve", "-w", str(tmp_path)])

    async def go() -> list[str]:
        async with Client(stdio_client(server)) as client:
            first = await client.call_tool("status", {})
            git(tmp_path, "add", ".")
            git(tmp_path, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "the task")
            answers = [first, await client.call_tool("status", {})]
            return [part.text for answer in answers for part in answer.content if isinstance(part, TextContent)]

    before, after = anyio.run(go)
    assert "autoresearch.toml is not in commit" in before and "connect this server again" in after


def test_program_md_is_an_agent_skill(tmp_path: Path):
    server = Server(["serve"])
    for client, folder in (("claude-code", ".claude"), ("codex", ".agents"), ("gemini", ".gemini")):
        (edit,) = skill(client, tmp_path, "# program\n\nBe bold.\n")
        assert edit.path == tmp_path / folder / "skills" / NAME / "SKILL.md"
        _, front, body = edit.after.split("---\n", 2)
        assert f"name: {NAME}\n" in front and "description: >-" in front and body == "\n# program\n\nBe bold.\n"
    assert not skill("claude-desktop", tmp_path, "x") and server.command


@pytest.mark.slow
def test_programs_are_compared_by_what_they_brought(
    tmp_path: Path, task_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    root = create(tmp_path / "workspace", str(task_folder(TOY, program__md="one\n"))).root
    first = open_session(root, "first")
    run(first)
    first.keep()
    replace(first, "open('result.txt', 'w').write('3.0')\n")
    run(first)
    first.keep()
    (root / "program.md").write_text("two\n")
    git(root, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qam", "another program")
    second = open_session(root, "second")
    run(second)
    second.keep()
    workspace = Workspace(root)
    found = programs(workspace, open_ledger(workspace).state().sessions)
    assert [program.sessions for program in found] == [["first"], ["second"]] and found[
        0
    ].digest == first.program() != second.program()
    assert (found[0].kept, found[0].gain, found[1].gain) == (1, 2.0, 0.0) and found[0].rate[0] > 0
    call("programs", "--workspace", str(root), "--json")
    assert [program["kept"] for program in json.loads(capsys.readouterr().out)] == [1, 0]
