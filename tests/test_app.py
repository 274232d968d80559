"""The MCP surface through the SDK's own client, over real stdio."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from mcp.client import Client
from mcp.types import Implementation

from autoresearch_mcp import app, calls
from autoresearch_mcp.errors import NotFoundError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, Settled, VerdictGiven
from autoresearch_mcp.views import build
from conftest import PATIENCE, ROOT, UNTIL_TOLD, WORK, connect, let_go, open_session, run, text_of

Make = Callable[..., Session]
SIX = ["apply_patch", "discard", "get_score", "keep", "read_notes", "run_experiment"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.slow
def test_a_whole_loop_on_a_text_file(notes: Session, mode: str):
    """The same code that trains language models: read_notes, get_score, higher is better."""
    anyio.run(whole_loop, notes.workspace.root, mode)


async def whole_loop(root: Path, mode: str) -> None:
    async with connect(root, mode=mode) as client:

        async def call(tool: str, /, **arguments: object) -> tuple[str, dict[str, object]]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            assert result.structured_content is not None
            assert text_of(result).rstrip().endswith(".") and "Next: " in text_of(result)
            return text_of(result), result.structured_content

        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert sorted(tools) == sorted([*SIX, "adopt", "history", "read_reference", "run_batch", "status", "stop_experiment"])
        assert all(tool.description and tool.output_schema and tool.annotations for tool in tools.values())
        assert all(
            tool.annotations and tool.annotations.destructive_hint is (name == "stop_experiment")
            for name, tool in tools.items()
            if not tool.annotations.read_only_hint
        )
        assert tools["read_notes"].annotations is not None and tools["read_notes"].annotations.read_only_hint

        text, status = await call("status")
        assert status["allowed"] == ["run_experiment"] and "maximize" in text
        _, view = await call("read_notes")
        assert view["total_lines"] == 3
        _, part = await call("read_notes", start_line=3, end_line=3)
        assert part["content"] == "An experiment has a budget and a metric.\n"

        _, result = await call("run_experiment", description="baseline")
        assert (result["status"], result["score"]) == ("scored", 1.88)
        await call("keep", learned="it counts words")

        patch = "<<<<<<< SEARCH\nAn experiment has a budget and a metric.\n=======\nbudget metric baseline commit verdict ledger sandbox\n>>>>>>> REPLACE\n"
        text, changed = await call("apply_patch", patch=patch)
        assert "+1 -1 lines" in text and "+budget metric" in text
        assert set(changed) == {"allowed"}  # a client that shows the JSON need not repeat the patch
        _, result = await call("run_experiment", description="all the words", hypothesis="points for words")
        assert (result["allowed"], result["suggestion"]) == (["keep", "discard"], "keep")
        assert result["gain"] == [pytest.approx(5.01)]
        text, judged = await call("keep")
        assert "Best: 6.89" in text and judged["allowed"] == ["apply_patch", "read_notes"]

        await call("apply_patch", patch="@@\n-# Notes on the loop\n+# Many many more words on the loop\n")
        await call("run_experiment", description="a longer title")
        text, judged = await call("discard", learned="titles cost")
        assert text.startswith("Experiment 3: discard") and "undone_diff" not in judged  # git has it
        _, changed = await call("apply_patch", patch="@@\n-#  Notes on the   loop\n+# Never run\n")
        assert changed["as_written"] is False and "-# Notes on the loop" in str(changed["diff"])  # the white space had drifted
        _, judged = await call("discard")
        assert "+# Never run" in str(judged["undone_diff"])

        text, history = await call("history")
        assert history["counts"] == {"keep": 2, "discard": 1}
        assert "3: titles cost" in text
        _, found = await call("history", search="title")
        assert [row["experiment"] for row in found["matches"]] == [3]  # type: ignore[union-attr,index]
        _, reference = await call("read_reference", name="outline.txt")
        assert "holdout" in str(reference["content"])


@pytest.mark.slow
def test_a_long_file_is_read_in_pages_that_say_how_to_go_on(toy: Make):
    lines = [f"# {i} " + "x" * 90 + "\n" for i in range(1, 1001)]
    session = toy("".join(lines) + "open('result.txt', 'w').write('1')\n")

    async def go() -> None:
        async with connect(session.workspace.root) as client:
            content, start, step = "", 1, "call read_work with start_line=1"
            while step.startswith(f"call read_work with start_line={start}"):
                answer = await client.call_tool("read_work", {"start_line": start})
                assert answer.structured_content and len(json.dumps(answer.structured_content)) < 40_000
                content += answer.structured_content["content"]
                start, step = answer.structured_content["end_line"] + 1, answer.structured_content["next"]
            assert step == "call run_experiment with no change, to run the baseline"
            assert content == session.read().text and len(content) > 90_000
            beyond = await client.call_tool("read_work", {"start_line": 5000})
            assert beyond.is_error and "has 1001 lines" in text_of(beyond)
            middle = await client.call_tool("read_work", {"start_line": 7, "end_line": 8})
            assert middle.structured_content and middle.structured_content["content"] == "".join(lines[6:8])
            assert "read on" not in middle.structured_content["next"]
            program = await client.call_tool("read_reference", {"name": "program.md"})
            assert program.structured_content and "total_lines" not in program.structured_content
            part = await client.call_tool("read_reference", {"name": "program.md", "start_line": 2, "end_line": 3})
            assert text_of(part).startswith("lines 2-3 of ")

    anyio.run(go)


@pytest.mark.slow
def test_errors_are_tool_errors_with_the_next_step_and_no_traceback(notes: Session):
    async def go() -> list[str]:
        texts: list[str] = []
        async with connect(notes.workspace.root) as client:
            for name, arguments in (
                ("apply_patch", {"patch": "@@\n-x\n+y\n"}),
                ("keep", {}),
                ("discard", {}),
                ("stop_experiment", {}),
                ("get_score", {}),
                ("read_reference", {"name": "/etc/passwd"}),
                ("read_reference", {"name": "log:x"}),
                ("read_notes", {"start_line": 50}),
                ("run_experiment", {"description": " "}),
            ):
                result = await client.call_tool(name, arguments)
                assert result.is_error, name
                texts.append(text_of(result))
            bad = await client.call_tool("read_notes", {"start_line": "many"})
            assert bad.is_error
        return texts

    for text in anyio.run(go):
        assert "Traceback" not in text and len(text) > 30


@pytest.mark.slow
def test_resources_and_prompt(notes: Session):
    run(notes)

    async def go() -> None:
        async with connect(notes.workspace.root) as client:
            listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
            assert listed == {
                "autoresearch://program",
                "autoresearch://notes",
                "autoresearch://results.tsv",
                "autoresearch://night",
                "ui://autoresearch/night.html",
            }
            templates = {template.uri_template for template in (await client.list_resource_templates()).resource_templates}
            assert templates == {"autoresearch://experiments/{number}/log", "autoresearch://experiments/{number}/diff"}
            for uri, word in (
                ("autoresearch://program", "Never stop"),
                ("autoresearch://notes", "# Notes"),
                ("autoresearch://results.tsv", "commit\tscore\tmemory_gb\tstatus\tdescription"),
                ("autoresearch://experiments/1/log", "untrusted"),
            ):
                content = (await client.read_resource(uri)).contents[0]
                assert word in content.text  # type: ignore[union-attr]
            prompt = await client.get_prompt("research")
            assert "Where the loop stands" in prompt.messages[0].content.text  # type: ignore[union-attr]

    anyio.run(go)


@pytest.mark.slow
def test_a_call_waits_no_longer_than_asked_and_progress_flows(toy: Make):
    session = toy("for i in range(40):\n    print('step', i, 'loss 1.5', flush=True)\n" + UNTIL_TOLD, budget_seconds="120")

    async def go() -> None:
        heard: list[str] = []

        async def listen(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message or "")
            if "training" in heard[-1]:
                let_go(session)

        async with connect(session.workspace.root) as client:
            result = await client.call_tool("run_experiment", {"description": "slow", "wait_seconds": 0.5})
            assert result.structured_content and result.structured_content["status"] == "running"
            result = await client.call_tool("get_score", {"wait_seconds": 60}, progress_callback=listen)
            assert result.structured_content and result.structured_content["status"] == "scored"
            assert any("training" in message for message in heard)
            assert str(result.structured_content["curve"]).split()[-1] == "39:1.5"

    anyio.run(go)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(
    ("name", "work", "status"),
    [("claude-code", "import time\ntime.sleep(1)\n" + WORK, "scored"), ("some-client", UNTIL_TOLD, "running")],
)
@pytest.mark.slow
def test_unasked_the_wait_is_as_long_as_the_client_is_known_to_sit_through(
    name: str, work: str, status: str, mode: str, toy: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "WAIT_DEFAULT", 0.2)
    session = toy(work)

    async def go() -> None:
        async with Client(app.build_server(session), mode=mode, client_info=Implementation(name=name, version="1")) as client:
            result = await client.call_tool("run_experiment", {"description": "baseline"})
            assert result.structured_content and result.structured_content["status"] == status
            let_go(session)
            asked = await client.call_tool("get_score", {"wait_seconds": 60})
            assert asked.structured_content and asked.structured_content["status"] == "scored"

    anyio.run(go)


@pytest.mark.slow
def test_two_clients_at_once_share_one_run(toy: Make):
    session = toy(UNTIL_TOLD, budget_seconds="120")

    async def go() -> None:
        async with connect(session.workspace.root) as one, connect(session.workspace.root) as two:
            results: list[dict[str, object]] = []
            waiting: set[str] = set()

            async def start(client: Client, name: str) -> None:
                async def waits(*_: object) -> None:
                    waiting.add(name)
                    if len(waiting) == 2:
                        let_go(session)

                answer = await client.call_tool("run_experiment", {"description": name}, progress_callback=waits)
                results.append(answer.structured_content or {})

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start, one, "one")
                tasks.start_soon(start, two, "two")
            assert [result["experiment"] for result in results] == [1, 1]
            verdicts = [await client.call_tool("keep", {}) for client in (one, two)]
            assert [verdict.is_error for verdict in verdicts] == [False, True]

    anyio.run(go)
    assert len(session.state.experiments) == 1


@pytest.mark.slow
def test_two_requests_of_one_client_at_once_do_no_harm(notes: Session):
    async def go() -> None:
        async with connect(notes.workspace.root) as client, anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(client.call_tool, "run_experiment", {"description": f"idea {number}"})

    anyio.run(go)
    assert len(open_session(notes.workspace.root).state.experiments) == 1


@pytest.mark.slow
def test_the_sealed_holdout_is_shown_by_no_tool_and_no_resource(toy: Make):
    session = toy(toml=SEALED)
    run(session)
    assert session.experiment(1).last is not None and session.experiment(1).last.holdout == 777.125  # type: ignore[union-attr]

    async def go() -> str:
        shown: list[str] = []
        async with connect(session.workspace.root) as client:
            for name, arguments in (
                ("status", {}),
                ("get_score", {}),
                ("history", {}),
                ("read_reference", {"name": "log:1"}),
                ("keep", {}),
            ):
                shown.append((await client.call_tool(name, arguments)).model_dump_json())
            for uri in ("results.tsv", "experiments/1/log", "experiments/1/diff", "program"):
                shown.append((await client.read_resource(f"autoresearch://{uri}")).model_dump_json())
        return "".join(shown)

    assert "777" not in anyio.run(go)


SEALED = """
name = "sealed"
goal = "Raise score."
[files]
editable = "work.py"
read_only = ["score.py"]
[metric]
name = "score"
direction = "maximize"
command = ["{python}", "-c", "import json; print(json.dumps({'score': 1.0, 'holdout': 777.125}))"]
"""


@pytest.mark.slow
def test_a_fresh_agent_is_brought_up_to_date_in_2000_tokens(notes: Session):
    """status and history of a session of 500 experiments with a large diff and long-winded lessons."""
    run(notes)
    notes.keep()
    long_file = "\n".join(f"A line about the budget and the metric, the {number}th of its kind." for number in range(300))
    commit = notes.workspace.commit_file(notes.state.head_commit, "notes.md", long_file.encode(), "much longer")
    with notes.ledger.transaction() as transaction:
        for number in range(2, 501):
            kept = number % 12 == 0
            transaction.append(
                ExperimentCommitted(
                    experiment=number, session=notes.tag, commit=commit, parent="0" * 40, file_sha256=str(number), lines=10,
                    added=3, removed=2, description=f"set MATRIX_LR to {number / 1000} and widen the MLP by {number % 7} while warming up longer",
                    places=[f"GPT.some_method_{number % 40}", "MATRIX_LR"],
                )
            )  # fmt: skip
            transaction.append(RunStarted(run=number, experiment=number, seed=1, conditions=""))
            transaction.append(RunEnded(run=number, outcome="scored", score=float(number)))
            transaction.append(
                VerdictGiven(
                    experiment=number,
                    verdict="keep" if kept else "discard",
                    reason="r",
                    learned=f"{number} teaches that wider is better up to a point " * 8,
                )
            )
            transaction.append(Settled(experiment=number))
    history, status = build.history(notes), build.status(notes)
    assert history.counts == {"keep": 42, "discard": 458}
    for answer in (history, status):
        assert tokens(answer.text()) < 2000
        assert tokens(json.dumps(answer.structured(), ensure_ascii=False)) < 2000
    text = status.text()
    assert "Rules: " in text and "+A line about the budget" in text and "cut; read_reference diff:best" in text
    assert "MATRIX_LR: 499 tried, 41 kept, nearest 500.000000 (500)" in text
    assert "499: 499 teaches" in text and "MATRIX_LR" in text and "Next: " in text


def tokens(text: str) -> float:
    """An upper bound. Without a network there is no cl100k here; its tokens average over three bytes of such text."""
    return len(text.encode()) / 3


@pytest.mark.slow
def test_status_and_references_show_what_was_kept_and_tried(toy: Make):
    session = toy("rate = 1\nopen('result.txt', 'w').write(str(rate))\n")
    run(session, "baseline")
    session.keep("slow")
    assert build.reference(session, "diff:best").content == "(the best is the baseline)"
    for rate, verdict in ((2, session.keep), (0, session.discard)):
        session.apply_patch(f"@@\n-rate = {2 if rate == 0 else 1}\n+rate = {rate}\n")
        run(session, f"rate {rate}")
        verdict("slow")
    status = build.status(session)
    assert "-rate = 1\n+rate = 2" in status.best_diff and status.since_best == 1
    assert [(theme.place, theme.tried, theme.kept, theme.best_experiment) for theme in status.tried] == [("rate", 2, 1, 2)]
    assert status.learned == ["3: slow"]  # said once, not three times
    assert (
        "+rate = 0" in build.reference(session, "diff:3").content
        and build.reference(session, "diff:best").content == status.best_diff
    )
    for wrong in ("diff:x", "log:", "nothing", "diff:99"):
        with pytest.raises(NotFoundError):
            build.reference(session, wrong)


@pytest.mark.slow
def test_resources_can_be_subscribed_to(notes: Session):
    """Changes are announced, also those that another server makes."""

    async def watch() -> list[str]:
        told: list[str] = []
        async with (
            connect(notes.workspace.root) as client,
            client.listen(resource_subscriptions=["autoresearch://notes", "autoresearch://results.tsv"]) as events,
        ):
            await anyio.sleep(4)  # the server looks twice a second
            await anyio.to_thread.run_sync(run, open_session(notes.workspace.root))  # elsewhere
            with anyio.fail_after(PATIENCE):
                async for event in events:
                    told.append(event.uri)  # type: ignore[union-attr]
                    if len(told) == 1:
                        await client.call_tool("keep", {})
                        await client.call_tool("apply_patch", {"patch": "@@\n-An experiment has a budget and a metric.\n+Less.\n"})
                    if "autoresearch://notes" in told:
                        return told
        raise AssertionError(told)

    told = anyio.run(watch)
    assert told[0] == "autoresearch://results.tsv" and told[-1] == "autoresearch://notes"


@pytest.mark.slow
def test_a_client_that_cancels_ends_its_wait_and_not_the_run(toy: Make):
    session = toy(UNTIL_TOLD, budget_seconds="120")

    async def cancel() -> dict[str, object]:
        async with connect(session.workspace.root) as client:
            with anyio.CancelScope() as patience:  # the SDK's client then sends notifications/cancelled

                async def enough(*_: object) -> None:
                    patience.cancel()

                await client.call_tool("run_experiment", {"description": "baseline"}, progress_callback=enough)
            assert patience.cancelled_caught
            status = await client.call_tool("status", {})  # the server is free again, and the run is still on
            assert (status.structured_content or {})["phase"] == "running"
            let_go(session)
            return (await client.call_tool("get_score", {"wait_seconds": 30})).structured_content or {}

    assert anyio.run(cancel)["score"] == 1.0


@pytest.mark.slow
def test_the_server_never_imports_torch_or_numpy(notes: Session):
    code = (
        "import sys; from pathlib import Path; import autoresearch_mcp.cli\n"
        "from autoresearch_mcp.loop.session import Session, open_ledger; from autoresearch_mcp.workspace import Workspace\n"
        "from autoresearch_mcp.app import build_server\n"
        f"w = Workspace(Path({str(notes.workspace.root)!r})); build_server(Session.start(w, open_ledger(w)))\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib', 'tiktoken') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_no_module_of_the_server_branches_on_language_models():
    for path in (ROOT / "server" / "autoresearch_mcp").rglob("*.py"):
        if path.parent.name != "evaluate" and path.name != "demo.py":
            assert not re.search(r"bpb|^import torch|^ +import torch", path.read_text(), re.MULTILINE), path


@pytest.mark.slow
def test_serve_makes_the_workspace_where_there_is_none(tmp_path: Path):
    async def go() -> list[str]:
        async with connect(tmp_path / "new", "--task", "notes") as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert set(SIX) <= set(anyio.run(go))
    assert (tmp_path / "new" / "notes.md").exists()


@pytest.mark.slow
def test_serve_prepares_missing_data_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))

    async def go() -> None:
        async with connect(tmp_path / "new", "--preset", "tiny") as client:
            with anyio.fail_after(PATIENCE):
                while not ((await client.call_tool("status", {})).structured_content or {})["data_ready"]:  # noqa: ASYNC110
                    await anyio.sleep(0.2)

    anyio.run(go)
    assert "ready in" in (tmp_path / "new" / ".autoresearch" / "prepare.log").read_text()


def test_a_workspace_that_cannot_be_served_is_one_message_on_stderr(tmp_path: Path):
    (tmp_path / "file.txt").write_text("x")
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(tmp_path)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("autoresearch-mcp: ") and "Traceback" not in result.stderr


def test_the_example_configuration_is_valid_and_names_our_command():
    config = json.loads((ROOT / "claude_desktop_config.example.json").read_text())
    server = config["mcpServers"]["autoresearch"]
    assert server["command"].endswith("autoresearch-mcp") and server["args"][0] == "serve"
