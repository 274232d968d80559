"""Whatever words come from outside, nothing that a terminal or a model obeys comes out: of tools, resources, commands, tables."""

import ast
from collections.abc import Callable

import anyio
import pytest
from mcp.client import Client
from typer.testing import CliRunner

from autoresearch_mcp import app, cli
from autoresearch_mcp.loop.rows import LEARNED
from autoresearch_mcp.loop.session import DESCRIPTION, Session
from autoresearch_mcp.record.events import ExperimentCommitted, RunEnded, RunStarted, VerdictGiven
from autoresearch_mcp.text import visible
from conftest import ROOT, open_session, run, text_of

NASTY = "\x1b]0;owned\x07\x1b[31mred\x9b2J\x00\u202eevil\u200b\U000e0041\ufe0f\u2028next\rgone"
ARGUMENTS = (
    ("apply_patch", "patch"),
    ("run_experiment", "description"),
    ("run_experiment", "hypothesis"),
    ("keep", "learned"),
    ("discard", "learned"),
    ("history", "search"),
    ("read_reference", "name"),
)
STRINGS = (NASTY, f"log:{NASTY}", "log:²", "diff:１", "\ud800", "\x00", "x" * 3_000_000, "")


@pytest.fixture
def hostile(toy: Callable[..., Session]) -> Session:
    """A session whose ledger, file and log hold such text already, as older versions let them."""
    work = f"# {NASTY.replace(chr(0), '').replace(chr(13), '')}\nprint({NASTY!r})\nopen('result.txt', 'w').write('1.0')\n"
    session = toy(work)
    run(session)
    session.keep()
    commit = session.state.head_commit
    with session.ledger.transaction() as transaction:
        for number, score in ((2, 0.5), (3, None)):
            transaction.append(
                ExperimentCommitted(
                    experiment=number, session=session.tag, commit=commit, parent=commit, file_sha256=str(number), lines=1, added=1,
                    removed=1, description=NASTY, hypothesis=NASTY, places=[NASTY],
                )
            )  # fmt: skip
            transaction.append(RunStarted(run=number, experiment=number, seed=1, conditions=""))
            ended = RunEnded(
                run=number, outcome="scored" if score else "crash", failure=None if score else NASTY, score=score, excerpt=NASTY,
                marks={NASTY: NASTY}, details={NASTY: 1.5}, seconds={"training": 1.0},
            )  # fmt: skip
            transaction.append(ended)
            transaction.append(VerdictGiven(experiment=number, verdict="discard", reason=NASTY, learned=NASTY))
    return open_session(session.workspace.root)


def clean(text: str, what: object) -> None:
    assert visible(text) == text, (what, visible(text))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_tool_and_resource(hostile: Session):
    async def go() -> None:
        async with Client(app.build_server(hostile)) as client:
            plain_calls = [("status", {}), ("history", {}), ("read_work", {}), ("get_score", {})]
            plain_calls += [("get_score", {"experiment": n}) for n in (1, 2, 3, 10**400, -1)]
            plain_calls += [("read_reference", {"name": f"{kind}:{n}"}) for kind in ("log", "diff") for n in (1, 2, 3)]
            for tool, argument in ARGUMENTS:
                for string in STRINGS:
                    needed = {"description": "x"} if argument == "hypothesis" else {}
                    plain_calls.append((tool, {argument: string, **needed}))
            for tool, arguments in plain_calls:
                answer = await client.call_tool(tool, arguments)
                clean(answer.model_dump_json(), (tool, str(arguments)[:80]))
                clean(text_of(answer), (tool, str(arguments)[:80]))
                assert "should not" not in text_of(answer), (tool, text_of(answer))
            for uri in ("program", "work", "results.tsv", "experiments/1/log", "experiments/2/diff"):
                clean((await client.read_resource(f"autoresearch://{uri}")).model_dump_json(), uri)
            clean((await client.get_prompt("research")).model_dump_json(), "prompt")

    before = hostile.ledger.length
    anyio.run(go)
    assert hostile.ledger.length == before, "nothing was stored"


def test_what_is_too_long_is_refused_at_the_schema(notes: Session):
    async def go() -> str:
        async with Client(app.build_server(notes)) as client:
            answer = await client.call_tool("run_experiment", {"description": "x", "hypothesis": "y" * 3_000_000})
            assert answer.is_error
            return text_of(answer)

    said = anyio.run(go)
    assert f"at most {LEARNED} characters" in said and len(said) < 300 and DESCRIPTION < LEARNED
    assert not notes.state.experiments


@pytest.mark.parametrize("command", [["status"], ["log"], ["log", "1"], ["log", "2"], ["log", "3"], ["watch", "--seconds", "0"]])
def test_every_command(hostile: Session, command: list[str]):
    said = CliRunner().invoke(cli.app, [*command, "--workspace", str(hostile.workspace.root)])
    assert said.exit_code == 0, said.output
    clean(said.output, command)


def test_the_table_of_results(hostile: Session):
    hostile.results.write()
    clean(hostile.results.path.read_text(), "results.tsv")
    assert all(line.count("\t") == 8 for line in hostile.results.path.read_text().splitlines())


def test_a_command_prints_through_the_gate_alone():
    """By construction: of all that a command is made of, `print` stands in `say` and nowhere else."""
    package = ROOT / "server" / "autoresearch_mcp"
    places = [package / f"{name}.py" for name in ("cli", "morning", "options")] + sorted((package / "views").glob("*.py"))
    calls = [
        path.stem
        for path in places
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert calls == ["options"]
