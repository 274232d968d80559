"""No failure inside reaches a client as anything but an answer in words, and none stops the server."""

import functools
import importlib
import inspect
import itertools
import json
import logging
import os
import pkgutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FunctionType, ModuleType

import anyio
import pytest
from git.exc import GitCommandError
from mcp.client import Client
from mcp.types import TextContent

import autoresearch_mcp
from autoresearch_mcp import app, calls
from autoresearch_mcp.loop.recovery import Recovery
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.text import visible
from conftest import connect, open_session, run, text_of, wait_for

ROOMS = ("loop", "record", "views", "executors", "workspace", "files", "data", "text", "run.spec", "run.progress", "run.sandbox")
FAULTS = (
    OSError(28, "No space left on device", "/somewhere"),
    sqlite3.OperationalError("disk I/O error"),
    GitCommandError(["git", "update-ref"], 128, b"fatal: unable to write", b""),
    PermissionError(13, "Permission denied", "/somewhere"),
    KeyError("missing"),
    MemoryError(),
)


def modules() -> list[ModuleType]:
    found = [m.name for m in pkgutil.walk_packages(autoresearch_mcp.__path__, "autoresearch_mcp.") if ".inside" not in m.name]
    wanted = [name for name in found if name.removeprefix("autoresearch_mcp.").startswith(ROOMS) and not name.endswith(".host")]
    return [importlib.import_module(name) for name in wanted]


def functions() -> Iterator[tuple[str, object, str]]:
    """(name, owner, attribute) of every function and method of the rooms behind the tools; not of the gate that every answer, an
    error's too, goes out through.
    """
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and value is not visible:
                yield f"{module.__name__}.{name}", module, name
            elif inspect.isclass(value) and value.__module__ == module.__name__:
                for inner, method in vars(value).items():
                    if isinstance(method, FunctionType | property | classmethod) and (
                        not inner.startswith("__") or inner == "__init__"
                    ):
                        yield f"{module.__name__}.{name}.{inner}", value, inner


@contextmanager
def replaced(owner: object, name: str, instead: Callable[[Callable[..., object]], Callable[..., object]]) -> Iterator[None]:
    """The function is another, wherever it is called from: also where it was imported by name. `instead` is told what it was."""
    original = inspect.getattr_static(owner, name)
    kind = type(original) if isinstance(original, property | classmethod) else lambda function: function
    plain = (
        original.fget if isinstance(original, property) else original.__func__ if isinstance(original, classmethod) else original
    )
    places = [(owner, name)]
    if isinstance(owner, ModuleType):
        ours = [module for key, module in sys.modules.items() if key.startswith("autoresearch_mcp")]
        places = [(module, key) for module in ours for key, value in vars(module).items() if value is original]
    another = kind(instead(plain))
    try:
        for place, key in places:
            setattr(place, key, another)
        yield
    finally:
        for place, key in places:
            setattr(place, key, original)


@contextmanager
def failing(owner: object, name: str, error: Exception) -> Iterator[None]:
    def fail(*_: object, **__: object) -> object:
        raise error

    with replaced(owner, name, lambda _: fail):
        yield


@contextmanager
def noted(owner: object, name: str, called: set[str], as_name: str) -> Iterator[None]:
    """The function goes on as before, and its name is among those that were called."""

    def instead(original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def note(*arguments: object, **options: object) -> object:
            called.add(as_name)
            return original(*arguments, **options)

        return note

    with replaced(owner, name, instead):
        yield


CALLS: tuple[tuple[str, dict[str, object]], ...] = (
    ("status", {}),
    ("read_notes", {}),
    ("apply_patch", {"patch": "@@\n # Notes on the loop\n+\n+budget metric\n"}),
    ("run_experiment", {"description": "an idea", "replicate": True, "wait_seconds": 0}),
    ("run_batch", {"experiments": [{"patch": "@@\n # Notes on the loop\n+metric\n", "description": "b"}], "wait_seconds": 0}),
    ("get_score", {"wait_seconds": 0}),
    ("history", {"search": "idea"}),
    ("read_reference", {"name": "diff:1"}),
    ("stop_experiment", {}),
    ("keep", {"learned": "x"}),
    ("discard", {"learned": "y"}),
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_fails_inside_every_tool_answers_in_words(notes: Session, monkeypatch: pytest.MonkeyPatch):
    """Every function behind the tools is made to fail in turn, each time with another error, and every tool is called that calls it
    where none fails, be it twice in a row or not.
    """
    run(notes)
    notes.keep()
    monkeypatch.setattr(calls, "WAIT_DEFAULT", 0.1)  # stop_experiment waits by itself
    told = 0

    async def go() -> None:
        nonlocal told
        async with Client(app.build_server(notes)) as client:
            users: dict[str, set[str]] = {tool: set() for tool, _ in CALLS}
            called: set[str] = set()
            with ExitStack() as all_noted:
                for name, owner, attribute in functions():
                    all_noted.enter_context(noted(owner, attribute, called, name))
                for tool, arguments in CALLS * 2:
                    called.clear()
                    await client.call_tool(tool, arguments)
                    users[tool] |= called
            assert sum(map(len, users.values())) > 500
            for (name, owner, attribute), error in zip(functions(), itertools.cycle(FAULTS)):
                with failing(owner, attribute, error):
                    for tool, arguments in CALLS:
                        if name not in users[tool]:
                            continue
                        result = await client.call_tool(tool, arguments)
                        text = text_of(result)
                        told += result.is_error
                        assert "Error executing tool" not in text and "Traceback" not in text, (name, tool, text)
                        assert not result.is_error or len(text) > 30, (name, tool, text)

    logging.getLogger("autoresearch_mcp").disabled = True  # hundreds of tracebacks
    try:
        anyio.run(go)
    finally:
        logging.getLogger("autoresearch_mcp").disabled = False
    assert told > 300
    session = open_session(notes.workspace.root)  # and what was left is a state to go on from
    wait_for(lambda: (session.refresh(), not session.state.running)[1])
    assert session.ledger.verify() > 0
    if "discard" in session.position().allowed:
        session.discard()
    elif session.position().allowed[0] == "keep":
        session.keep()
    assert session.position().phase == "ready"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_what_fails_beside_the_calls_ends_no_server(fault: Exception, notes: Session, monkeypatch: pytest.MonkeyPatch):
    for name in ("ADVANCE_EVERY", "CATCH_UP_AFTER", "HEAL_AFTER"):
        monkeypatch.setattr(app, name, 0.0)
    failed: list[str] = []

    def fails(name: str) -> Callable[..., None]:
        def fail(*_: object) -> None:
            failed.append(name)
            raise fault

        return fail

    async def go() -> str:
        with monkeypatch.context() as broken:
            for owner, name in ((Session, "advance"), (Recovery, "catch_up"), (Recovery, "restore_refs"), (app, "_seen")):
                broken.setattr(owner, name, fails(name))
            async with Client(app.build_server(notes)) as client, client.listen(resource_subscriptions=[app.RESULTS]):
                while set(failed) < {"advance", "catch_up", "restore_refs", "_seen"}:  # noqa: ASYNC110 (nothing signals it)
                    await anyio.sleep(0.01)
                return text_of(await client.call_tool("status", {}))

    assert "Raise score" in anyio.run(go)


def test_wrong_arguments_are_explained_without_the_librarys_words(notes: Session):
    async def go() -> list[str]:
        async with Client(app.build_server(notes)) as client:
            wrong = (
                ("read_notes", {"start_line": "many"}),
                ("read_notes", {"start_line": 0}),
                ("apply_patch", {}),
                ("nonsense", {}),
            )
            answers = [await client.call_tool(name, arguments) for name, arguments in wrong]
            assert all(answer.is_error for answer in answers)
            return [text_of(answer) for answer in answers]

    many, zero, lacking, unknown = anyio.run(go)
    assert "start_line: " in many and "Correct them and call read_notes again" in many
    assert "greater than or equal to 1" in zero and "patch: Field required" in lacking and "nonsense" in unknown
    assert not any("Error executing" in text or "pydantic" in text for text in (many, zero, lacking, unknown))


BROKEN = """
import sys
from autoresearch_mcp.text import visible
from autoresearch_mcp.views import build
def history(*_): raise KeyError("x" * 2000)
build.history = history
sys.argv[1:] = ["serve", "--workspace", sys.argv[1]]
from autoresearch_mcp.cli import main
main()
"""


@pytest.mark.slow
def test_errors_that_nobody_reads_never_stop_the_server(notes: Session):
    """stderr is a pipe that nobody drains; each error's traceback is longer than a line."""
    command = [sys.executable, "-c", BROKEN, str(notes.workspace.root)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None and server.stderr is not None

    def ask(number: int, method: str, **params: object) -> dict[str, dict[str, object]]:
        server.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    ask(0, "initialize", **hello)
    server.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    for number in range(1, 400):
        answer = ask(number, "tools/call", name="history", arguments={})
        assert answer["result"]["isError"], answer
    server.stdin.close()
    assert server.wait(60) == 0
    said = server.stderr.read()
    assert (
        said.startswith("autoresearch-mcp: KeyError") and "Traceback" not in said and max(map(len, said.splitlines())) <= calls.LINE
    )
    logs = sorted(notes.workspace.state_dir.glob("server.log*"))
    assert "Traceback" in logs[0].read_text() and sum(path.stat().st_size for path in logs) <= 2 * calls.LOG_BYTES


@pytest.mark.slow
def test_the_log_and_its_line_survive_a_full_disk_and_a_closed_stderr(tmp_path: Path):
    code = (
        "import os, sys, logging; from pathlib import Path; from autoresearch_mcp.calls import log_to\n"
        "log_to(Path(sys.argv[1]))\nos.close(2)\nlogging.getLogger('x').error('said')\nprint('alive')\n"
    )
    for path in ("/dev/full", str(tmp_path / "log"), str(tmp_path / "no" / "folder")):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=dict(os.environ))
        assert done.stdout == "alive\n", (path, done.stderr)


@pytest.mark.slow
def test_a_real_client_sees_the_words_too(notes: Session):
    async def go() -> str:
        async with connect(notes.workspace.root) as client:
            answer = await client.call_tool("keep", {})
            assert answer.is_error and isinstance(answer.content[0], TextContent)
            return answer.content[0].text

    assert anyio.run(go).startswith("keep is not allowed now")


@pytest.mark.slow
def test_half_a_surrogate_in_a_patch_does_not_end_the_server(notes: Session):
    """Escaped twice it passes the protocol's own JSON; an answer that quotes it could not be encoded."""
    run(notes)
    notes.keep()

    async def go() -> None:
        async with connect(notes.workspace.root) as client:
            for patch in (
                '{"old_string": "# Notes \\ud800", "new_string": "x"}',
                '{"old_string": "# Notes", "new_string": "\\ud83d"}',
            ):
                assert (await client.call_tool("apply_patch", {"patch": patch})).is_error
            described = await client.call_tool("run_experiment", {"description": "\x00 a\u202e b", "replicate": True})
            assert not described.is_error, text_of(described)
            assert (await client.call_tool("status", {})).structured_content

    anyio.run(go)
