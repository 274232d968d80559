"""The page over HTTP: who may see it, what it is made of, and what changes, as server-sent events. It reads and never writes.

A request must name this server in Host (so that a name somebody else owns cannot lead here), come from this page or from nowhere
in Origin, and carry the cookie of a one-time link or the bearer token of the tools; the token opens nothing that is sealed, since
agents' clients have it. Without either only if it was so started, on loopback, and never with what is sealed.
"""

import hmac
import json
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from jinja2 import Environment, FileSystemLoader, select_autoescape
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError, NotFoundError
from autoresearch_mcp.links import COOKIE_SECONDS, Links
from autoresearch_mcp.loop.rows import latest_tag
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.views.page import content
from autoresearch_mcp.views.page.panel import FILES
from autoresearch_mcp.workspace import Workspace

LOOK_EVERY = 1.0  # seconds between looks at the ledger and at the run that is on
GRACE = 1.0  # seconds that a stream has to end when the server does
PING, TAKING = 15, 300  # seconds between signs of life, and that a page has to take an event: its machine may be busy, or asleep
STREAMS = 64  # open pages of one server
PICTURES = {"card": "card", "progress": "plot"}
"""By name: the command that draws it."""
PICTURES_KEPT, DRAWING = 16, 120.0  # pictures that are kept until the ledger grows, and seconds that one may take
TYPES = {"svg": "image/svg+xml", "png": "image/png"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Who may look, and at what."""

    names: list[str]
    """Hosts that requests may name in Host and Origin."""
    links: Links
    token: str | None = None
    """Of the tools, where one was made."""
    anyone: bool = False
    sealed: bool = False
    """Whether the page tells of the holdout."""

    def is_ours(self, headers: Headers, path: str) -> bool:
        """Whether a request names this server, and comes from this page or from nowhere. From elsewhere somebody may be led to the
        page itself, and nothing else: not a picture in another page.
        """
        host, origin = headers.getlist("host"), headers.getlist("origin")
        if len(host) != 1 or _without_port(host[0]) not in self.names:
            return False
        led = path == "/" and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not led:
            return False
        return not origin or (len(origin) == 1 and origin[0] in (f"http://{host[0]}", f"https://{host[0]}"))

    def admits(self, headers: Headers, cookie: str) -> bool:
        if self.anyone or (cookie and self.links.knows(cookie)):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = bool(self.token) and not self.sealed and scheme.lower() == "bearer"
        return known and hmac.compare_digest(given.strip().encode(), (self.token or "").encode())


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


class Guard:
    """Lets a request for the page pass, or says why not. Every answer has HEADERS."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        request = Request(scope)
        refused = self._refusal(request)
        await (refused or self._app)(scope, receive, sent)

    def _refusal(self, request: Request) -> Response | None:
        if not self._access.is_ours(request.headers, request.url.path):
            return JSONResponse({"error": "This server does not answer to that Host or Origin."}, 421)
        if request.method not in ("GET", "HEAD"):
            return JSONResponse({"error": "The page only reads."}, 405)
        if request.url.path == "/" and (key := request.query_params.get("key")) is not None and request.method == "GET":
            return self._exchanged(key)
        if request.url.path.startswith("/static/"):
            return None
        if self._access.admits(request.headers, request.cookies.get(self._access.links.cookie_name, "")):
            return None
        return _told("This page needs its link", "Run this where the workspace is, and open what it prints:", 401)

    def _exchanged(self, key: str) -> Response:
        try:
            cookie = self._access.links.exchange(key)
        except AutoresearchError as error:
            return _told("This link cannot be used now", f"{error} It still works then, until it is too old. For another:", 503)
        if cookie is None:
            return _told("This link has been used, or is too old", "A link works once, for a quarter of an hour. For another:", 401)
        response = RedirectResponse("/", 303)
        name = self._access.links.cookie_name
        response.set_cookie(name, cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="lax")
        return response


_TEMPLATES = Environment(loader=FileSystemLoader(FILES / "templates"), autoescape=select_autoescape())


def _told(title: str, text: str, status: int) -> Response:
    page = _TEMPLATES.get_template("told.html")
    return HTMLResponse(page.render(title=title, text=text, command="autoresearch-mcp dashboard --link", v=__version__), status)


# --- what is shown ----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one open page has been told."""

    tag: str = ""
    """The session it is shown."""
    length: int = -1
    versions: dict[int, int] = field(default_factory=dict[int, int])
    now: str = ""


class Watched:
    """A workspace as it is looked at: its own connection to the ledger, one session object a line of research. Not for two threads
    at once."""

    def __init__(self, workspace: Workspace, sealed: bool):
        self._workspace, self._sealed = workspace, sealed
        self._ledger = open_ledger(workspace)
        self._sessions: dict[str, Session] = {}
        self._rows, self._now = content.Rows(sealed), content.Now()

    def session(self, tag: str | None) -> Session:
        """The latest for None. Raises NotFoundError."""
        self._workspace.require_root()
        sessions = self._ledger.state().sessions
        tag = tag or (latest_tag(sessions) if sessions else None)
        if tag is None or tag not in self._sessions:
            opened = Session.open(self._workspace, self._ledger, tag)
            tag = opened.tag
            self._sessions[tag] = opened
        return self._sessions[tag]

    def _chosen(self, tag: str | None, everyone: bool) -> Session:
        """What a page asks for; of all sessions the one with the best score, whose figures stand for them."""
        session = self.session(tag)
        if not everyone:
            return session
        scored = [state for state in content.shown_states(session, True) if state.best_score is not None]
        return (
            self.session(max(scored, key=lambda state: state.sign * (state.best_score or 0.0)).started.tag) if scored else session
        )

    def changes(self, tag: str | None, everyone: bool, seen: Seen) -> list[ServerSentEvent]:
        """What an open page has not been told: everything at first."""
        try:
            session = self._chosen(tag, everyone)
        except NotFoundError as error:
            told, seen.now = [] if seen.now else [_event("empty", {"words": str(error)})], "empty"
            return told
        if not everyone and seen.tag not in ("", session.tag):  # a new one has begun: nothing of the last is shown any more
            seen.length, seen.versions = -1, {}
        seen.tag = session.tag
        length, events = session.ledger.length, list[ServerSentEvent]()
        if length != seen.length:
            states = content.shown_states(session, everyone)
            best = {state.best.number for state in states if state.best}
            made = self._rows.of(states)
            rows = [row for number, (version, row) in made.items() if number in best or seen.versions.get(number) != version]
            told = {"fields": content.FIELDS, "rows": rows, "head": content.head(session, everyone, self._sealed)}
            events.append(_event("night" if seen.length < 0 else "rows", told))
            seen.length, seen.versions = length, {number: version for number, (version, _) in made.items()}
        others = [self.session(state.started.tag) for state in content.shown_states(session, everyone) if state.running]
        now = self._now.of(session, others if everyone else [session])
        if (told := json.dumps(now, allow_nan=False)) != seen.now:
            seen.now = told
            events.append(ServerSentEvent(data=told, event="now"))
        return events

    def experiment(self, number: int) -> dict[str, Any]:
        """Of whatever session has it. Raises NotFoundError."""
        found = self._ledger.state().experiments.get(number)
        if found is None:
            raise NotFoundError(f"There is no experiment {number} in this workspace.")
        return content.experiment(self.session(found.committed.session), number, self._sealed)


def _event(name: str, told: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(data=json.dumps(told, allow_nan=False), event=name)


# --- the application --------------------------------------------------------------------------------------------------


class Page:
    """Its routes."""

    def __init__(self, workspace: Workspace, access: Access):
        self._workspace, self._sealed = workspace, access.sealed
        self._watched: Watched | None = None
        self._streams = 0
        self._turns = anyio.CapacityLimiter(1)
        self._drawing = anyio.Lock()
        self._drawn: dict[tuple[str, str, str], tuple[int, bytes]] = {}

    async def page(self, request: Request) -> Response:
        page = _TEMPLATES.get_template("page.html")
        return HTMLResponse(page.render(title=self._workspace.root.name, v=__version__))

    async def events(self, request: Request) -> Response:
        if self._streams >= STREAMS:
            return JSONResponse({"error": f"{STREAMS} pages are open. Close some."}, 503)
        tag, everyone = request.query_params.get("session"), request.query_params.get("everyone") == "1"

        ended = anyio.Event()

        async def stream() -> AsyncGenerator[ServerSentEvent]:
            seen, said = Seen(), ""
            self._streams += 1
            try:
                while not ended.is_set():
                    try:
                        for event in await self._look(lambda watched: watched.changes(tag, everyone, seen)):
                            yield event
                        said = ""
                    except AutoresearchError as error:
                        seen.now = ""  # so that something is told when it is over
                        if str(error) != said:
                            yield _event("trouble", {"words": (said := str(error))})
                    with anyio.move_on_after(LOOK_EVERY):
                        await ended.wait()
            finally:
                self._streams -= 1

        return EventSourceResponse(stream(), ping=PING, send_timeout=TAKING, shutdown_event=ended, shutdown_grace_period=GRACE)

    async def experiment(self, request: Request) -> Response:
        number = request.path_params["number"]
        return JSONResponse(await self._look(lambda watched: watched.experiment(number)))

    async def picture(self, request: Request) -> Response:
        """Drawn by the command of that name in a process of its own: matplotlib is large, and draws in one thread alone."""
        name, form = request.path_params["name"], request.path_params["form"]
        if name not in PICTURES or form not in TYPES:
            return JSONResponse({"error": "There is no such picture: card and progress, as svg or png."}, 404)
        session = await self._look(lambda watched: watched.session(request.query_params.get("session")))
        tag, length = session.tag, await self._look(lambda watched: session.ledger.length)
        async with self._drawing:  # one at a time, and the same only once
            known = self._drawn.get((name, form, tag))
            if known is None or known[0] != length:
                drawn = await self._draw(name, form, tag)
                if isinstance(drawn, str):
                    return JSONResponse({"error": drawn}, 404)
                self._drawn = {key: one for key, one in self._drawn.items() if len(self._drawn) < PICTURES_KEPT}
                known = self._drawn[name, form, tag] = (length, drawn)
        return Response(known[1], media_type=TYPES[form])

    async def _draw(self, name: str, form: str, tag: str) -> bytes | str:
        """The picture, or why there is none."""
        async with anyio.TemporaryDirectory() as folder:
            path = anyio.Path(folder, f"{name}.{form}")
            command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", PICTURES[name]]
            where = ["--workspace", str(self._workspace.root), "--session", tag, "--output", str(path)]
            try:
                with anyio.fail_after(DRAWING):
                    drawn = await anyio.run_process([*command, *where], check=False)
            except TimeoutError:
                return f"Drawing it took longer than {DRAWING:g} s. Draw it by hand: autoresearch-mcp {PICTURES[name]}"
            if drawn.returncode:
                lines = drawn.stderr.decode(errors="replace").strip().splitlines()
                return (lines or ["it could not be drawn"])[-1]
            return await path.read_bytes()

    async def _look(self, work: Callable[[Watched], T]) -> T:
        """Does blocking work in a thread, after whatever is on."""
        return await anyio.to_thread.run_sync(partial(self._with_watched, work), limiter=self._turns)

    def get_ready(self) -> None:
        """Reads the ledger and makes its rows, which takes its time in a long night."""
        self._with_watched(lambda watched: watched.changes(None, False, Seen()))

    def _with_watched(self, work: Callable[[Watched], T]) -> T:
        if self._watched is None:
            self._watched = Watched(self._workspace, self._sealed)
        return work(self._watched)


async def _explained(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404)


def build_page(workspace: Workspace, access: Access, ready: bool = False) -> ASGIApp:
    """The ASGI application of the page; with `ready` the ledger is read before the first visit."""
    page = Page(workspace, access)
    if ready:
        page.get_ready()
    routes = [
        Route("/", page.page),
        Route("/events", page.events),
        Route("/experiment/{number:int}", page.experiment),
        Route("/{name}.{form}", page.picture),
        Mount("/static", StaticFiles(directory=FILES / "static")),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={AutoresearchError: _explained}), access)
