"""The panel inside a chat: the real server's resource, in the protocol's own host, in a real browser."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp.client import Client
from playwright.sync_api import Page, expect, sync_playwright

from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.views.page.panel import panel
from clients.programs import NODE, installed
from conftest import PATIENCE, ROOT, UNTIL_TOLD, connect, let_go
from written_night import write_night

pytestmark = pytest.mark.slow
expect.set_options(timeout=PATIENCE * 1000)
Make = Callable[..., Session]
HOST = ROOT / "tests" / "clients" / "host" / "host.js"


# --- what the server says of it ---------------------------------------------------------------------------------------


def test_it_is_linked_from_two_tools_and_read_by_its_name(toy: Make):
    session = toy()

    async def ask() -> tuple[dict[str, Any], Any]:
        async with connect(session.workspace.root) as client:
            tools = {tool.name: tool.meta or {} for tool in (await client.list_tools()).tools}
            (page,) = (await client.read_resource("ui://autoresearch/night.html")).contents
            return tools, page

    tools, page = anyio.run(ask)
    linked = {name for name, meta in tools.items() if "ui" in meta}
    assert linked == {"status", "get_score"}
    assert tools["status"]["ui"] == {"resourceUri": "ui://autoresearch/night.html"}
    assert page.mime_type == "text/html;profile=mcp-app" and page.text == panel()


def test_it_is_one_page_that_fetches_nothing():
    page = panel()
    assert page.count("<script") == 2 == page.count("</script>") and "{{" not in page.replace("{{7", "")
    assert "import " not in page.partition('<script type="module">')[2] and "http://" not in page.replace("http://www.w3.org", "")


def test_the_night_it_reads_holds_nothing_sealed(toy: Make):
    session = toy()
    write_night(session, 45)

    async def ask() -> dict[str, Any]:
        async with connect(session.workspace.root) as client:
            return json.loads((await client.read_resource("autoresearch://night")).contents[0].text)

    told = anyio.run(ask)
    assert len(told["rows"]) == 45 and told["head"]["sealed"] is False and '"holdout": ' not in json.dumps(told)
    assert {row[told["fields"].index("holdout")] for row in told["rows"]} == {None}


# --- in a host --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the host is served: its script with the libraries in it."""
    folder, modules = tmp_path_factory.mktemp("host"), installed().parent
    command = [
        modules / ".bin" / "esbuild",
        HOST,
        "--bundle",
        "--format=iife",
        f"--outfile={folder / 'host.js'}",
        "--log-level=error",
    ]
    environment = os.environ | {"NODE_PATH": str(modules), "PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(list(map(str, command)), check=True, env=environment, timeout=PATIENCE)
    (folder / "index.html").write_text("<!doctype html><title>host</title><body><script src='host.js'></script>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@contextmanager
def chat(root: Path) -> Iterator[Callable[..., Any]]:
    """A real client of the real server, called from outside of any event loop."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(connect(root)) as client:
        yield functools.partial(_call, portal, client)


def _call(portal: BlockingPortal, client: Client, name: str, *arguments: Any) -> Any:
    answer = portal.call(getattr(client, name), *arguments)
    return json.loads(answer.model_dump_json(by_alias=True, exclude_none=True))


@pytest.fixture
def browse(host: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(host)
        yield page
        browser.close()
        assert not complaints, complaints


def show(page: Page, call: Callable[..., Any], **options: Any) -> Any:
    """The panel's frame, shown for an answer of `status`."""
    page.expose_function("readResource", lambda uri: json.dumps(call("read_resource", uri)))
    html = call("read_resource", "ui://autoresearch/night.html")["contents"][0]["text"]
    page.evaluate("([html, result, options]) => window.show(html, result, options)", [html, call("call_tool", "status"), options])
    return page.frame_locator("iframe")


@pytest.mark.needs("npm", "chromium")
def test_a_host_shows_the_night_and_the_run_that_is_on(toy: Make, browse: Page):
    session = toy(f"print('step 1 loss 3', flush=True)\nprint('step 2 loss 2', flush=True)\n{UNTIL_TOLD}")
    number, _ = session.run_experiment("the <b>baseline</b>")
    with chat(session.workspace.root) as call:
        frame = show(browse, call, theme="dark")
        expect(frame.locator(".now")).to_contain_text("the <b>baseline</b>: training")
        expect(frame.locator(".curves canvas")).to_be_visible()
        expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
        let_go(session, number)
        expect(frame.locator(".stats")).to_contain_text("1.000000" if session.state.best else "–")
        expect(frame.locator(".now")).to_have_text("")
        browse.wait_for_function("window.sizes.some(size => size.height > 100)")
        browse.evaluate("window.bridge.setHostContext({theme: 'light'})")
        expect(frame.locator("html")).to_have_attribute("data-theme", "light")
        browse.evaluate("window.bridge.teardownResource({})")


@pytest.mark.needs("npm", "chromium")
def test_a_host_that_reads_nothing_shows_the_words(toy: Make, browse: Page):
    session = toy()
    write_night(session, 45)
    with chat(session.workspace.root) as call:
        frame = show(browse, call, resources=False)
        expect(frame.locator("pre.log")).to_contain_text("score")
        expect(frame.locator("pre.log")).to_contain_text(session.tag)


@pytest.mark.needs("npm", "chromium")
def test_hostile_words_stay_words(toy: Make, browse: Page):
    session = toy()
    write_night(
        session,
        45,
        description='<img src=x onerror="parent.owned = 1; window.owned = 1"></script><script>window.owned = 1</script>',
    )
    with chat(session.workspace.root) as call:
        frame = show(browse, call)
        expect(frame.locator(".chart canvas")).to_be_visible()
        assert frame.locator("img").count() == 0
        assert frame.locator("html").evaluate("window.owned") is None
