"""The page over HTTP, by the real command in a process of its own: who is let in, what is told, and that nothing is written."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from autoresearch_mcp import cli
from autoresearch_mcp.links import LINK_SECONDS, Links
from autoresearch_mcp.loop.session import Session
from clients.served import serving
from conftest import PATIENCE, UNTIL_TOLD, let_go, open_session, run, wait_for
from written_night import write_night

pytestmark = pytest.mark.slow
Make = Callable[..., Session]


@contextmanager
def dashboard(root: Path, *options: str) -> Iterator[str]:
    """Serves the page of a workspace; gives what it printed as its address, with the link's key where it has one."""
    command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "dashboard", "--workspace", str(root), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("page: "), line
        yield line.split()[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def page() -> Iterator[Callable[..., str]]:
    with ExitStack() as started:
        yield lambda root, *options: started.enter_context(dashboard(root, *options))


def let_in(link: str) -> httpx2.Client:
    """A browser that has opened the link."""
    address = link.partition("/?")[0]
    client = httpx2.Client(base_url=address, follow_redirects=True, timeout=PATIENCE)
    assert client.get(link).status_code == 200
    return client


@contextmanager
def told_by(client: httpx2.Client, query: str = "") -> Iterator[Callable[[], tuple[str, Any]]]:
    """What gives the next event of an open page: its name and what it says."""
    with client.stream("GET", f"/events{query}", timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line.startswith(("event: ", "data: ")))
        yield lambda: (next(lines).removeprefix("event: "), json.loads(next(lines).removeprefix("data: ")))


def events(client: httpx2.Client, query: str = "", until: str = "now") -> list[tuple[str, Any]]:
    """What is told up to the first event of that name."""
    found: list[tuple[str, Any]] = []
    with told_by(client, query) as following:
        while not found or found[-1][0] != until:
            found.append(following())
    return found


# --- who is let in ----------------------------------------------------------------------------------------------------


def test_a_link_works_once_and_sets_a_cookie(toy: Make, page: Callable[..., str]):
    link = page(toy().workspace.root)
    address = link.partition("/?")[0]
    assert httpx2.get(f"{address}/").status_code == 401
    first = httpx2.get(link)
    assert first.status_code == 303
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower()
    assert httpx2.get(link).status_code == 401  # used
    own = cookie.partition(";")[0]
    assert httpx2.get(f"{address}/", headers={"Cookie": own}).status_code == 200
    name, _, value = own.partition("=")
    for other in ("x", value[:-1] + ("0" if value[-1] != "0" else "1"), f"{value}.x", "", "a.b.c"):
        assert httpx2.get(f"{address}/events", headers={"Cookie": f"{name}={other}"}).status_code == 401


def test_a_head_request_does_not_use_a_link_up(toy: Make, page: Callable[..., str]):
    link = page(toy().workspace.root)
    assert httpx2.head(link).status_code == 401
    assert httpx2.get(link).status_code == 303


def test_a_link_that_cannot_be_noted_as_used_is_not_used_up(toy: Make, page: Callable[..., str]):
    session = toy()
    link, folder = page(session.workspace.root), session.workspace.state_dir / "page-links"
    folder.write_text("a file where the folder would be")
    refused = httpx2.get(link)
    assert refused.status_code == 503 and "cannot be written" in refused.text and "set-cookie" not in refused.headers
    folder.unlink()
    assert httpx2.get(link).status_code == 303
    assert httpx2.get(link).status_code == 401


def test_a_link_runs_out(toy: Make, monkeypatch: pytest.MonkeyPatch):
    links = Links(toy().workspace)
    key, now = links.make(), time.time()
    cookie = links.exchange(links.make())
    assert cookie is not None and links.knows(cookie)
    monkeypatch.setattr(time, "time", lambda: now + LINK_SECONDS + 1)
    assert links.exchange(key) is None
    assert links.knows(cookie)
    assert not links.knows(key) and links.exchange(cookie) is None  # neither is the other


def test_another_link_can_be_had_while_it_is_served(toy: Make, page: Callable[..., str]):
    root = toy().workspace.root
    said = CliRunner().invoke(cli.app, ["dashboard", "--link", "--workspace", str(root)])
    assert said.exit_code == 1 and "autoresearch-mcp dashboard" in str(said.exception)
    page(root)
    another = CliRunner().invoke(cli.app, ["dashboard", "--link", "--workspace", str(root)]).stdout.strip()
    let_in(another)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": ""}])
def test_a_page_of_somebody_else_is_refused(toy: Make, page: Callable[..., str], headers: dict[str, str]):
    address = page(toy().workspace.root, "--without-link")
    assert httpx2.get(f"{address}/").status_code == 200
    refused = httpx2.get(f"{address}/", headers=headers)
    assert refused.status_code in (400, 421)


def test_only_its_own_page_may_show_its_parts(toy: Make, page: Callable[..., str]):
    """A picture in somebody else's page has no Origin: what the browser says of where it is to be shown decides."""
    session = toy()
    write_night(session, 5)
    address = page(session.workspace.root, "--without-link")
    for site in ("cross-site", "same-site"):
        elsewhere = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert httpx2.get(f"{address}/card.png", headers=elsewhere).status_code == 421
        assert httpx2.get(f"{address}/", headers=elsewhere).status_code == 421
        led = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert httpx2.get(f"{address}/", headers=led).status_code == 200
        assert httpx2.get(f"{address}/experiment/1", headers=led).status_code == 421


def test_the_cookie_of_a_plain_page_opens_no_sealed_one(toy: Make):
    workspace = toy().workspace
    plain, sealed = Links(workspace), Links(workspace, sealed=True)
    cookie, other = plain.exchange(plain.make()), sealed.exchange(plain.make())
    assert cookie and other and plain.knows(cookie) and sealed.knows(other)
    assert not sealed.knows(cookie) and not plain.knows(other) and plain.cookie_name != sealed.cookie_name


def test_it_only_reads(toy: Make, page: Callable[..., str]):
    session = toy()
    run(session)
    before = {
        path: path.read_bytes()
        for path in session.workspace.state_dir.glob("*")
        if path.is_file() and "ledger.db-" not in path.name
    }
    client = httpx2.Client(base_url=page(session.workspace.root, "--without-link"), timeout=PATIENCE)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/").status_code == 405
    events(client)
    client.get("/experiment/1")
    after = {path: path.read_bytes() for path in before}
    assert after == before


@pytest.mark.parametrize(
    ("options", "told"), [(["--sealed"], "--sealed"), (["--host", "0.0.0.0", "--allow-remote"], "other machines")]
)
def test_what_is_sealed_or_reached_from_afar_wants_its_link(toy: Make, options: list[str], told: str):
    said = CliRunner().invoke(cli.app, ["dashboard", "--without-link", "--workspace", str(toy().workspace.root), *options])
    assert said.exit_code == 1 and told in str(said.exception)


def test_the_tools_token_opens_the_page_and_never_what_is_sealed(toy: Make, page: Callable[..., str]):
    session = toy()
    token = {"Authorization": f"Bearer {session.workspace.bearer_token()}"}
    plain, sealed = (page(session.workspace.root, *options).partition("/?")[0] for options in ([], ["--sealed"]))
    assert httpx2.get(f"{plain}/", headers=token).status_code == 200
    assert httpx2.get(f"{plain}/", headers={"Authorization": "Bearer x"}).status_code == 401
    assert httpx2.get(f"{sealed}/", headers=token).status_code == 401


def test_serve_over_http_has_the_page_too(toy: Make):
    session = toy()
    with serving(session) as served:
        address = served.url.removesuffix("/mcp")
        assert httpx2.get(f"{address}/").status_code == 401
        assert httpx2.post(served.url, json={}).status_code == 401  # the tools want their token still
        link = Links(session.workspace).to(address)
        name, told = events(let_in(link))[0]
        assert name == "night" and told["head"]["session"] == session.tag


def test_paths_lead_nowhere_else(toy: Make, page: Callable[..., str]):
    address = page(toy().workspace.root, "--without-link")
    for path in (
        "/static/../dashboard.py",
        "/static/%2e%2e/content.py",
        "/static//etc/passwd",
        "/card.exe",
        "/other.png",
        "/experiment/x",
        "/mcp",
    ):
        assert httpx2.get(f"{address}{path}").status_code == 404, path


# --- what is told -----------------------------------------------------------------------------------------------------


def test_everything_first_then_only_what_is_new(toy: Make, page: Callable[..., str]):
    session = toy()
    write_night(session, 60)
    client = let_in(page(session.workspace.root))
    with told_by(client) as following:
        name, night = following()
        assert name == "night" and len(night["rows"]) == 60
        row = dict(zip(night["fields"], night["rows"][40], strict=True))
        assert row["number"] == 41 and row["status"] == "keep" and row["runs"] == 2 and row["known"] is not None
        assert following()[0] == "now"
        write_night(session, 3, seed=2)
        name, more = following()
        assert name == "rows"
        assert {row[0] for row in more["rows"]} == {61, 62, 63, session.state.best.number if session.state.best else 0}


def test_the_run_that_is_on_is_told_of(toy: Make, page: Callable[..., str]):
    session = toy(f"print('step 1 loss 3.5', flush=True)\nprint('step 2 loss 2.5', flush=True)\n{UNTIL_TOLD}")
    number, _ = session.run_experiment("baseline <b>bold</b>")
    client = let_in(page(session.workspace.root))
    told: dict[str, Any] = {}

    def is_told() -> bool:
        told.update(events(client)[-1][1])
        return told["curve"] == [[1.0, 3.5], [2.0, 2.5]]

    wait_for(is_told)
    (on,) = told["runs"]
    assert (
        on["number"] == number and on["phase"] == "training" and on["budget"] == 20 and on["description"] == "baseline <b>bold</b>"
    )
    assert "step 2 loss 2.5" in told["log"] and any(use["used"] for use in told["slots"])
    let_go(session, number)
    wait_for(lambda: not events(client)[-1][1]["runs"])


def test_one_experiment_in_full(toy: Make, page: Callable[..., str]):
    session = toy("print('step 1 loss 3')\nprint('step 2 loss 2')\n" + "open('result.txt', 'w').write('1.0')\n")
    run(session)
    session.keep("where we start")
    session.apply_patch(
        "<<<<<<< SEARCH\nopen('result.txt', 'w').write('1.0')\n=======\nopen('result.txt', 'w').write('2.0')\n>>>>>>> REPLACE\n"
    )
    run(session, "twice as much", hypothesis="more is more")
    client = let_in(page(session.workspace.root))
    told = client.get("/experiment/2").json()
    assert told["description"] == "twice as much" and told["hypothesis"] == "more is more"
    assert "+open('result.txt', 'w').write('2.0')" in told["diff"] and told["score"] == "2.000000"
    assert told["curve"] == [[1.0, 3.0], [2.0, 2.0]] == told["best_curve"]
    assert "step 2 loss 2" in told["log"] and told["runs"][0]["outcome"] == "scored" and told["runs"][0]["seconds"]
    missing = client.get("/experiment/77")
    assert missing.status_code == 404 and "77" in missing.json()["error"]


def test_the_holdout_only_where_it_was_asked_for(toy: Make, page: Callable[..., str]):
    session = toy()
    write_night(session, 45)
    told: dict[bool, str] = {}
    seen: dict[bool, Any] = {}
    for options in ([], ["--sealed"]):
        client = let_in(page(session.workspace.root, *options))
        seen[bool(options)] = [events(client), client.get("/experiment/41").json()]
        told[bool(options)] = json.dumps(seen[bool(options)])
    assert '"holdout": ' not in told[False]
    assert '"holdout": {"baseline"' in told[True] and told[True].count('"holdout": "') == 2
    assert [seen[sealed][0][0][1]["rows"][40][10] is not None for sealed in (False, True)] == [False, True]


def test_all_sessions_at_once(toy: Make, page: Callable[..., str]):
    first = toy()
    write_night(first, 5)
    second = open_session(first.workspace.root, "second")
    write_night(second, 4, seed=3)
    client = let_in(page(first.workspace.root))
    alone, all_of_them = events(client, f"?session={first.tag}")[0][1], events(client, "?everyone=1")[0][1]
    assert len(alone["rows"]) == 5 and {row[1] for row in alone["rows"]} == {first.tag}
    assert len(all_of_them["rows"]) == 9 and {row[1] for row in all_of_them["rows"]} == {first.tag, "second"}
    assert [one["tag"] for one in all_of_them["head"]["sessions"]] == ["second", first.tag]
    assert events(client, "?session=nothere", until="empty")[0][0] == "empty"


def test_a_session_that_begins_takes_the_place_of_the_one_before(toy: Make, page: Callable[..., str]):
    first = toy()
    write_night(first, 5)
    client = let_in(page(first.workspace.root))
    with told_by(client) as told_next:

        def following(wanted: str) -> Any:
            while True:
                name, told = told_next()
                if name == wanted:
                    return told

        assert len(following("night")["rows"]) == 5
        second = open_session(first.workspace.root, "second")
        write_night(second, 2, seed=3)
        told = following("night")
        while len(told["rows"]) < 2:  # it may be seen before its first experiment is
            told["rows"] += following("rows")["rows"]
        assert {row[1] for row in told["rows"]} == {"second"} and told["head"]["session"] == "second"


def test_no_score_has_more_digits_than_the_agent_sees(toy: Make, page: Callable[..., str]):
    session = toy()
    write_night(session, 45)
    told = events(let_in(page(session.workspace.root)))[0][1]
    figures = [row[place] for row in told["rows"] for place in (3, 4, 9)] + [
        told["head"]["noise"][name] for name in ("deviation", "interval", "luck")
    ]
    known = [figure for figure in figures if figure is not None]
    assert len(known) > 45 and all(round(figure, 6) == figure for figure in known)


def test_a_workspace_without_a_session_waits_for_one(
    toy: Make, page: Callable[..., str], tmp_path: Path, task_folder: Callable[..., Path]
):
    from autoresearch_mcp.create import create

    root = create(tmp_path / "new", str(task_folder())).root
    client = let_in(page(root))
    name, told = events(client, until="empty")[0]
    assert name == "empty" and "serve" in told["words"]
    open_session(root)
    wait_for(lambda: events(client, until="now")[0][0] == "night")


def test_pictures_come_as_they_are_asked_for(toy: Make, page: Callable[..., str]):
    session = toy()
    client = let_in(page(session.workspace.root))
    early = client.get("/card.png")
    assert early.status_code == 404 and "no score" in early.json()["error"]
    write_night(session, 45)
    card, svg = client.get("/card.png"), client.get(f"/progress.svg?session={session.tag}")
    assert card.content.startswith(b"\x89PNG") and card.headers["content-type"] == "image/png"
    assert int.from_bytes(card.content[16:20]) == 1200 and int.from_bytes(card.content[20:24]) == 630
    assert b"<svg" in svg.content and svg.headers["content-type"].startswith("image/svg+xml")
    assert "script-src 'self'" in svg.headers["content-security-policy"]


def test_a_workspace_that_is_moved_away_is_said(toy: Make, page: Callable[..., str]):
    session = toy()
    write_night(session, 3)
    client = let_in(page(session.workspace.root))
    events(client)
    session.workspace.root.rename(session.workspace.root.with_name("elsewhere"))
    told = events(client, until="trouble")[-1]
    assert "not there any more" in told[1]["words"]
