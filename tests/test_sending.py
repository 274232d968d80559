"""The ready hook: what ntfy, Slack and a webhook are told, by the real command against a stand-in of each."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from autoresearch_mcp.loop.session import Session
from conftest import PATIENCE, TOY, run, wait_for
from written_night import write_night

pytestmark = pytest.mark.slow
Make = Callable[..., Session]


@dataclass
class StandIn:
    """Takes what is posted, and answers as the service would."""

    address: str = ""
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    answers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    status: int = 200


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, dict(self.headers), body))
            answer = json.dumps(made.answers.get(self.path, {"ok": True})).encode()
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()


def notify(*arguments: str, event: dict[str, Any] | str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "notify", *arguments]
    given = event if isinstance(event, str) else json.dumps(event)
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | environment)


def event_of(session: Session, **more: Any) -> dict[str, Any]:
    return {
        "event": "keep", "task": "toy", "metric": "score", "workspace": str(session.workspace.root), "session": session.tag,
        "experiment": 41, "description": "a *bold* <idea> für alle & @channel http://evil.example/x.png", "score": 1.25, "summary": "90 experiments",
    } | more  # fmt: skip


def test_ntfy_is_told_with_the_card(toy: Make, stand_in: StandIn):
    session = toy()
    write_night(session, 45)
    told = notify("ntfy", f"{stand_in.address}/my-topic", "--card", "--page", "https://page.example/", event=event_of(session))
    assert told.returncode == 0, told.stderr
    ((path, headers, body),) = stand_in.asked
    assert path == "/my-topic" and body.startswith(b"\x89PNG") and headers["Filename"] == "card.png"
    assert headers["Title"] == "toy: kept" and headers["Click"] == "https://page.example/"
    said = str(make_header(decode_header(headers["Message"])))
    assert "a *bold* <idea> für alle & @channel http://evil.example/x.png" in said and "1.250000" in said


def test_ntfy_is_told_in_words_where_there_is_no_score_yet(toy: Make, stand_in: StandIn):
    told = notify("ntfy", f"{stand_in.address}/t", "--card", event=event_of(toy()))
    assert told.returncode == 0, told.stderr
    ((_, headers, body),) = stand_in.asked
    assert "für alle" in body.decode() and "Message" not in headers


def test_a_webhook_gets_the_event_and_the_card(toy: Make, stand_in: StandIn):
    session = toy()
    write_night(session, 45)
    assert notify("webhook", stand_in.address, event=event_of(session)).returncode == 0
    assert notify("webhook", "env:WHERE", "--card", event=event_of(session), WHERE=stand_in.address).returncode == 0
    plain, form = stand_in.asked
    assert json.loads(plain[2])["title"] == "toy: kept" and json.loads(plain[2])["experiment"] == 41
    assert form[1]["Content-Type"].startswith("multipart/form-data") and b"\x89PNG" in form[2] and b'"experiment": 41' in form[2]


def test_slack_takes_words_by_a_webhook_with_nothing_in_them_that_it_obeys(toy: Make, stand_in: StandIn):
    assert notify("slack", f"{stand_in.address}/services/x", event=event_of(toy())).returncode == 0
    text = json.loads(stand_in.asked[0][2])["text"]
    assert not re.search(r"https?://|\w\.\w", text.partition("\n")[2].replace("1.250000", ""))
    assert "&lt;idea&gt;" in text and "&amp;" in text and "*bold*" not in text and text.startswith("*toy: kept*")


def test_slack_takes_the_card_as_a_bot(toy: Make, stand_in: StandIn):
    session = toy()
    write_night(session, 45)
    stand_in.answers["/files.getUploadURLExternal"] = {"ok": True, "upload_url": f"{stand_in.address}/upload", "file_id": "F1"}
    settings = {"SLACK_API": stand_in.address, "SLACK_BOT_TOKEN": "xoxb-1"}
    told = notify("slack", "C123", "--card", event=event_of(session), **settings)
    assert told.returncode == 0, told.stderr
    assert [path for path, _, _ in stand_in.asked] == ["/files.getUploadURLExternal", "/upload", "/files.completeUploadExternal"]
    assert stand_in.asked[0][1]["Authorization"] == "Bearer xoxb-1" and stand_in.asked[1][2].startswith(b"\x89PNG")
    assert json.loads(stand_in.asked[2][2])["channel_id"] == "C123"
    stand_in.answers["/chat.postMessage"] = {"ok": False, "error": "not_in_channel"}
    refused = notify("slack", "C123", event=event_of(session), **settings)
    assert refused.returncode == 1 and "not_in_channel" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "event", "told"),
    [
        (("ntfy", "http://127.0.0.1:9/x"), {"event": "keep"}, "could not be told"),
        (("ntfy", "env:NOWHERE"), {"event": "keep"}, "NOWHERE is not set"),
        (("ntfy", "nonsense"), {"event": "keep"}, "could not be told"),
        (("slack", "C1"), {"event": "keep"}, "SLACK_BOT_TOKEN"),
        (("webhook", "http://127.0.0.1:9"), "no json", "no event"),
        (("webhook", "http://127.0.0.1:9"), "[1]", "no event"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], event: Any, told: str):
    said = notify(*arguments, event=event)
    assert said.returncode == 1 and told in said.stderr and "Traceback" not in said.stderr


def test_a_service_that_refuses_is_said(stand_in: StandIn):
    stand_in.status = 403
    said = notify("webhook", stand_in.address, event={"event": "end", "reason": "done"})
    assert said.returncode == 1 and "403" in said.stderr


def test_it_is_a_hook_of_a_task(toy: Make, stand_in: StandIn):
    hook = json.dumps([sys.executable, "-P", "-m", "autoresearch_mcp.cli", "notify", "ntfy", f"{stand_in.address}/night"])
    session = toy(toml=TOY + f"\n[notify]\non_keep = {hook}\n")
    run(session)
    session.keep()
    session.apply_patch(
        "<<<<<<< SEARCH\nopen('result.txt', 'w').write('1.0')\n=======\nopen('result.txt', 'w').write('2.0')\n>>>>>>> REPLACE\n"
    )
    run(session, "twice as much")
    session.keep()
    wait_for(lambda: stand_in.asked)
    assert stand_in.asked[0][1]["Title"] == "toy: kept" and "twice as much" in stand_in.asked[0][2].decode()
