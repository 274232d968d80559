"""Streamable HTTP: the real server in its own process, real clients, and requests that must not pass."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.web import MAX_REQUEST_BYTES, listen
from clients.served import Served, serving
from conftest import PATIENCE, UNTIL_TOLD, let_go, open_session, supervisor_of, text_of, wait_for

pytestmark = pytest.mark.slow
Make = Callable[..., Session]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture
def serve() -> Iterator[Callable[[Session], Served]]:
    """Starts `serve --http` on a session's workspace."""
    with ExitStack() as started:
        yield lambda session: started.enter_context(serving(session))


def post(served: Served, body: object = INITIALIZE, **headers: str) -> httpx2.Response:
    given = {"authorization": f"Bearer {served.token}", "accept": "application/json, text/event-stream"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(served.url, json=body, headers={name: value for name, value in given.items() if value})


@asynccontextmanager
async def client_of(served: Served, mode: str = "auto", session: str = "", header: str = ""):
    headers = {"authorization": f"Bearer {served.token}"} | ({"Autoresearch-Session": header} if header else {})
    url = f"{served.url}/{session}" if session else served.url
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


async def session_of(client: Client) -> str:
    answer = (await client.call_tool("status", {})).structured_content
    assert answer is not None
    return answer["session"]


def test_each_client_names_its_session_and_they_run_side_by_side(toy: Make, serve: Callable[[Session], Served]):
    """By the URL or by a header; each has a branch, a file and experiments of its own, and one ledger holds them all."""
    session = toy()

    async def go() -> None:
        served = serve(session)
        async with (
            client_of(served) as first,
            client_of(served, session="wide") as second,
            client_of(served, header="deep") as third,
            client_of(served, session="wide") as fourth,
        ):
            assert [await session_of(client) for client in (first, second, third, fourth)] == [session.tag, "wide", "deep", "wide"]
            async with anyio.create_task_group() as tasks:
                for client in (first, second, third):
                    tasks.start_soon(client.call_tool, "run_experiment", {"description": "baseline", "wait_seconds": 60})
            for client in (first, second, third):
                assert not (await client.call_tool("keep", {})).is_error
            answer = (await fourth.call_tool("history", {"all": True})).structured_content
            assert answer is not None
            assert {row.get("session") for row in answer["latest"]} == {session.tag, "deep", None}
            alone = (await fourth.call_tool("history", {})).structured_content
            assert alone is not None and len(alone["latest"]) == 1

    anyio.run(go)
    state = open_session(session.workspace.root).ledger.state()
    assert sorted(state.sessions) == sorted([session.tag, "deep", "wide"])
    assert sorted(state.experiments) == [1, 2, 3] and all(len(of.kept) == 1 for of in state.sessions.values())


def test_a_name_that_is_none_is_refused_and_nothing_is_started(toy: Make, serve: Callable[[Session], Served]):
    session = toy()
    served = serve(session)
    for name in ("..", "a/b", "%2e%2e", "x" * 51, "-x"):
        answer = httpx2.post(f"{served.url}/{name}", json=INITIALIZE, headers={"authorization": f"Bearer {served.token}"})
        assert answer.status_code in (404, 405, 406), (name, answer.text)  # 405: what leads to the page, which only reads
    assert list(open_session(session.workspace.root).ledger.state().sessions) == [session.tag]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_loop_runs_over_http_in_both_protocol_eras(notes: Session, serve: Callable[[Session], Served], mode: str):
    async def loop() -> None:
        async with client_of(serve(notes), mode) as client:
            assert "run_experiment" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("run_experiment", {"description": "baseline"})
            assert not result.is_error and (result.structured_content or {})["status"] == "scored"
            assert "Next: " in text_of(await client.call_tool("keep", {}))

    anyio.run(loop)


def test_many_clients_share_one_workspace_and_one_run(toy: Make, serve: Callable[[Session], Served]):
    session = toy(UNTIL_TOLD, budget_seconds="120")

    async def clients() -> None:
        served = serve(session)
        results: list[dict[str, object]] = []
        waiting: set[int] = set()

        async def one(number: int) -> None:
            async def waits(*_: object) -> None:
                waiting.add(number)
                if len(waiting) == 4:
                    let_go(session)

            async with client_of(served) as client:
                answer = await client.call_tool("run_experiment", {"description": "baseline"}, progress_callback=waits)
                results.append(answer.structured_content or {})

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(one, number)
        assert [(result["experiment"], result["status"]) for result in results] == [(1, "scored")] * 4

    anyio.run(clients)
    assert len(session.state.experiments) == 1 and len(session.experiment(1).runs) == 1


def test_a_client_that_goes_away_loses_nothing(toy: Make, serve: Callable[[Session], Served]):
    session = toy(UNTIL_TOLD, budget_seconds="120")

    async def gone_and_back() -> None:
        served = serve(session)
        with anyio.CancelScope() as patience:

            async def enough(*_: object) -> None:
                patience.cancel()

            async with client_of(served) as client:
                await client.call_tool("run_experiment", {"description": "baseline"}, progress_callback=enough)
        assert patience.cancelled_caught
        let_go(session)
        async with client_of(served) as client:
            result = await client.call_tool("get_score", {"wait_seconds": 30})
            assert (result.structured_content or {})["score"] == 1

    anyio.run(gone_and_back)


def test_the_run_outlives_the_http_server(toy: Make, serve: Callable[[Session], Served]):
    session = toy(UNTIL_TOLD, budget_seconds="120")

    async def start() -> Served:
        served = serve(session)
        async with client_of(served) as client:
            await client.call_tool("run_experiment", {"description": "baseline", "wait_seconds": 0})
        return served

    served = anyio.run(start)
    supervisor = supervisor_of(session, 1)
    served.process.terminate()
    assert served.process.wait(PATIENCE) in (0, -15)
    assert supervisor.is_running()
    let_go(session)
    wait_for(lambda: open_session(session.workspace.root).experiment(1).score == 1)


def test_only_the_right_token_passes(notes: Session, serve: Callable[[Session], Served]):
    served = serve(notes)
    assert post(served).status_code == 200
    for given in (
        "",
        "Bearer",
        f"Bearer {served.token}x",
        f"Bearer {served.token[:-1]}",
        f"Basic {served.token}",
        served.token,
    ):
        answer = post(served, authorization=given)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer"), given
        assert "autoresearch-mcp status" in answer.json()["error_description"]
    assert httpx2.get(served.url.replace("/mcp", "/anything")).status_code == 401


def test_other_hosts_and_origins_are_refused(notes: Session, serve: Callable[[Session], Served]):
    """A page in a browser that was led to loopback by DNS rebinding names its own host and origin."""
    served = serve(notes)
    assert post(served, host="evil.example").status_code == 421
    assert post(served, origin="https://evil.example").status_code == 403
    assert post(served, origin="http://localhost:3000").status_code == 200


def test_a_request_that_is_too_large_is_refused(notes: Session, serve: Callable[[Session], Served]):
    assert post(serve(notes), INITIALIZE | {"padding": "x" * MAX_REQUEST_BYTES}).status_code == 413


def test_the_token_is_the_owners_alone_and_status_shows_it(notes: Session, serve: Callable[[Session], Served]):
    served = serve(notes)
    assert stat.S_IMODE(notes.workspace.token_path.stat().st_mode) == 0o600 and len(served.token) >= 43
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "status", "-w", str(notes.workspace.root)]
    assert served.token in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (
        json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)["http_token"]
        == served.token
    )
    served.process.terminate()
    served.process.wait(PATIENCE)
    assert serve(notes).token == served.token  # for as long as the workspace lives


def test_no_tool_and_no_resource_shows_the_token(notes: Session, serve: Callable[[Session], Served]):
    async def look() -> str:
        served = serve(notes)
        async with client_of(served) as client:
            seen = [text_of(await client.call_tool(tool, {})) for tool in ("status", "history", "read_notes")]
            seen += [str(await client.list_resources()), str(await client.get_prompt("research", {}))]
        assert served.token not in "".join(seen)
        return served.token

    assert anyio.run(look)


def test_an_address_beyond_this_machine_wants_a_flag():
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(AutoresearchError, match="--allow-remote"):
            listen(host, 0, remote=False)
    listen("0.0.0.0", 0, remote=True).close()
    with listen("127.0.0.1", 0, remote=False) as taken, pytest.raises(AutoresearchError, match="--port"):
        listen("127.0.0.1", taken.getsockname()[1], remote=False)


def test_serve_says_so_in_one_message(notes: Session):
    command = [
        sys.executable,
        "-m",
        "autoresearch_mcp.cli",
        "serve",
        "--http",
        "--host",
        "0.0.0.0",
        "-w",
        str(notes.workspace.root),
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and re.fullmatch(r"autoresearch-mcp: .*--allow-remote\.\n", ended.stderr)


def test_another_workspace_has_another_token(tmp_path: Path, notes: Session):
    from autoresearch_mcp.create import create

    other = create(tmp_path / "other", "notes")
    assert other.bearer_token() != notes.workspace.bearer_token()
