"""A hook that is ready: tells ntfy, Slack or a webhook what happened, with the card. A task names it in [notify]:

    on_keep = ["autoresearch-mcp", "notify", "ntfy", "https://ntfy.sh/my-topic", "--card"]

It reads the event as JSON from its input, as every hook does, so an agent's words are never part of a command. Addresses and tokens
may stand in the environment instead of in the task: an address `env:NAME` is read from there, Slack's token from SLACK_BOT_TOKEN.
What is sent leaves this machine, and holds nothing of the holdout.
"""

import json
import os
import re
import sys
import tempfile
from email.header import Header
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.options import open_session, say
from autoresearch_mcp.text import format_score, one_line

SECONDS = 20.0  # for each request
SLACK = "https://slack.com/api"
TITLES = {"keep": "kept", "plateau": "plateau", "stall": "the agent stands still", "end": "the session is over"}
Kind = Literal["ntfy", "slack", "webhook"]


def notify(
    kind: Annotated[Kind, typer.Argument(help="ntfy, slack or webhook.")],
    address: Annotated[
        str, typer.Argument(help="Where to; env:NAME reads it from the environment. For slack a webhook, or a channel's id.")
    ],
    with_card: Annotated[
        bool, typer.Option("--card", help="Send the card along. Slack takes it for a channel's id alone.")
    ] = False,
    page: Annotated[str | None, typer.Option(help="A link to add, to where your dashboard is.")] = None,
) -> None:
    """Tell ntfy, Slack or a webhook of an event, as a [notify] hook: the event is read as JSON from the input."""
    event = read_event(sys.stdin.read())
    to = _address(address)
    card = draw(event) if with_card else None
    try:
        SENDERS[kind](to, event, card, page)
    except OSError as error:
        raise AutoresearchError(f"{kind} could not be told: {error}. Check the address and the network.") from error
    say(f"told {kind}: {headline(event)}")


def read_event(text: str) -> dict[str, Any]:
    """Raises AutoresearchError for what is no event."""
    try:
        event = json.loads(text)
        if not isinstance(event, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise AutoresearchError(
            f"The input is no event ({error}). This command is for [notify] of a task, which gives it one. To try it: "
            """echo '{"event": "keep", "task": "t", "metric": "m"}' | autoresearch-mcp notify ..."""
        ) from error
    return cast("dict[str, Any]", event)


def _address(given: str) -> str:
    if not given.startswith("env:"):
        return given
    name = given.removeprefix("env:")
    if not (found := os.environ.get(name, "").strip()):
        raise AutoresearchError(
            f"{name} is not set in the environment. Set it where the server is started, or name the address itself."
        )
    return found


def draw(event: dict[str, Any]) -> bytes | None:
    """The card of the event's session; None where there is none yet."""
    from autoresearch_mcp.views.card import draw_card

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "card.png")
        try:
            draw_card(open_session(Path(event["workspace"]), event.get("session")), path)
        except (AutoresearchError, KeyError):
            return None
        return path.read_bytes()


# --- words ------------------------------------------------------------------------------------------------------------


def headline(event: dict[str, Any]) -> str:
    task, title = one_line(str(event.get("task", "autoresearch")), 60), TITLES.get(str(event.get("event")), str(event.get("event")))
    return f"{task}: {title}"


def body(event: dict[str, Any]) -> str:
    """What happened, in a few lines of plain text."""
    told: list[str] = []
    if description := event.get("description"):
        told.append(f"experiment {event.get('experiment')}: {one_line(str(description), 300)}")
    if isinstance(score := event.get("score"), int | float):
        told.append(f"{one_line(str(event.get('metric', 'score')), 40)} {format_score(float(score))}")
    if event.get("since_best"):
        told.append(f"{event['since_best']} experiments in a row did not help")
    if reason := event.get("reason"):
        told.append(one_line(str(reason), 300))
    if summary := event.get("summary"):
        told.append(one_line(str(summary), 500))
    return "\n".join(told)


# --- where they go ----------------------------------------------------------------------------------------------------


def post(url: str, **content: Any) -> Any:
    """The answer of a request. Raises AutoresearchError for one that is refused, OSError where nobody answers."""
    import httpx2

    try:
        answer = httpx2.post(url, timeout=SECONDS, **content)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if answer.status_code >= 300:
        raise AutoresearchError(f"{answer.status_code} {answer.reason_phrase}: {one_line(answer.text, 200)}. Check the address.")
    return answer


def to_ntfy(address: str, event: dict[str, Any], card: bytes | None, page: str | None) -> None:
    """A message, or the card as its attachment (docs.ntfy.sh/publish)."""
    headers = {
        "Title": _header(headline(event)),
        "Tags": {"keep": "white_check_mark", "end": "checkered_flag"}.get(event.get("event", ""), "bell"),
    }
    if page:
        headers["Click"] = page
    if card is None:
        post(address, content=body(event).encode(), headers=headers)
    else:
        post(address, content=card, headers=headers | {"Message": _header(body(event)), "Filename": "card.png"})


def _header(text: str) -> str:
    """Text as a header carries it (RFC 2047)."""
    return Header(text.replace("\n", " · "), "utf-8", maxlinelen=10_000).encode() if not text.isascii() or "\n" in text else text


def to_slack(address: str, event: dict[str, Any], card: bytes | None, page: str | None) -> None:
    """By an incoming webhook, which takes words alone; by a channel's id as a bot, which may send files as well."""
    words = f"*{_slack(headline(event))}*\n{_slack(body(event))}" + (f"\n<{page}|the page>" if page else "")
    if address.startswith(("http://", "https://")):
        post(address, json={"text": words, "unfurl_links": False, "unfurl_media": False})
        return
    api, token = os.environ.get("SLACK_API", SLACK), os.environ.get("SLACK_BOT_TOKEN")
    if not token:
        raise AutoresearchError("SLACK_BOT_TOKEN is not set. Set it where the server is started, or give a webhook's address.")
    headers = {"Authorization": f"Bearer {token}"}
    if card is None:
        _agreed(
            post(
                f"{api}/chat.postMessage",
                json={"channel": address, "text": words, "unfurl_links": False, "unfurl_media": False},
                headers=headers,
            )
        )
        return
    where = _agreed(
        post(f"{api}/files.getUploadURLExternal", data={"filename": "card.png", "length": str(len(card))}, headers=headers)
    )
    post(where["upload_url"], content=card)
    done = {"files": [{"id": where["file_id"], "title": headline(event)}], "channel_id": address, "initial_comment": words}
    _agreed(post(f"{api}/files.completeUploadExternal", json=done, headers=headers))


def _agreed(answer: Any) -> dict[str, Any]:
    """Slack says in the body whether it did what it was asked."""
    told = answer.json()
    if not told.get("ok"):
        raise AutoresearchError(
            f"Slack refuses: {one_line(str(told.get('error')), 100)}. Check SLACK_BOT_TOKEN, its scopes and the channel."
        )
    return told


def _slack(text: str) -> str:
    """Text in which nothing is a mention, a link or markup to Slack."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(?<=\w)([.:])(?=[\w/])", "\u200b\\1", text)  # no address
    return re.sub(r"([*_~`@#])", "\u200b\\1", text)


def to_webhook(address: str, event: dict[str, Any], card: bytes | None, page: str | None) -> None:
    """The event as JSON; with the card as a form of two parts, `event` and `card`."""
    told = event | {"title": headline(event), "text": body(event)} | ({"page": page} if page else {})
    if card is None:
        post(address, json=told)
    else:
        parts = {"event": ("event.json", json.dumps(told), "application/json"), "card": ("card.png", card, "image/png")}
        post(address, files=parts)


SENDERS = {"ntfy": to_ntfy, "slack": to_slack, "webhook": to_webhook}
