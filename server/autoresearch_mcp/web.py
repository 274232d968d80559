"""Streamable HTTP for many clients of one workspace: the SDK's transport behind a bearer token, on loopback by default.

/mcp is the session that the server was started with; /mcp/NAME, or the header Autoresearch-Session, names another, which begins
with its first client. Sessions run side by side, each with tools of its own; what they share is the ledger and the machine's slots.
"""

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable

import anyio
import uvicorn
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from autoresearch_mcp.errors import AutoresearchError

PATH = "/mcp"
MAX_REQUEST_BYTES = 4 << 20  # a patch of 1 MiB, escaped as JSON, and room
GRACE = 2  # seconds that open requests have when the server is told to end; runs go on without it
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADER = b"autoresearch-session"
MOST_SESSIONS = 64  # of one server

Make = Callable[[str | None], Awaitable[MCPServer]]
"""The tools of a session, started where it is new; None for the one that the server is for. Raises AutoresearchError."""


class BearerToken:
    """Lets a request pass only with `Authorization: Bearer <token>` (RFC 6750)."""

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._carries_token(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            message = "This server wants the header 'Authorization: Bearer <token>'. `autoresearch-mcp status` shows the token."
            response = JSONResponse(
                {"error": "invalid_token", "error_description": message}, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
            await response(scope, receive, send)

    def _carries_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, credentials = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return hmac.compare_digest(credentials.strip(), self.token) and scheme.lower() == b"bearer"


class BySession:
    """Passes each request on to the application of the session that it names, which is made when it is first named."""

    def __init__(self, make: Make, first: str, security: TransportSecuritySettings):
        """`first` is the name of the session that None stands for."""
        self._make, self._first, self._security = make, first, security
        self._apps: dict[str | None, Starlette] = {}
        self._making = anyio.Lock()
        self._tasks: TaskGroup | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        name = _session(scope)
        name = None if name == self._first else name
        if name not in self._apps and scope["method"] != "POST":  # a session begins with what a client sends
            await JSONResponse({"error": f"No client has begun the session {name!r}."}, 404)(scope, receive, send)
            return
        try:
            app = self._apps.get(name) or await self._app(name)
        except AutoresearchError as error:
            await JSONResponse({"error": str(error)}, 404)(scope, receive, send)
            return
        inner = PATH if scope["path"].startswith(f"{PATH}/") else scope["path"]
        await app({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await self._app(None)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            tasks.cancel_scope.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _app(self, name: str | None) -> Starlette:
        async with self._making:
            if name not in self._apps:
                if len(self._apps) > MOST_SESSIONS:
                    raise AutoresearchError(f"One server serves at most {MOST_SESSIONS} sessions. Start another.")
                server = await self._make(name)
                app = server.streamable_http_app(
                    streamable_http_path=PATH, max_request_body_size=MAX_REQUEST_BYTES, transport_security=self._security
                )
                assert self._tasks is not None, "requests come after the start"
                await self._tasks.start(_kept_alive, app)
                self._apps[name] = app
            return self._apps[name]


async def _kept_alive(app: Starlette, *, task_status: TaskStatus[None]) -> None:
    async with app.router.lifespan_context(app):
        task_status.started()
        await anyio.sleep_forever()


def _session(scope: Scope) -> str | None:
    """Which session a request names."""
    if scope["path"].startswith(f"{PATH}/") and (name := scope["path"].removeprefix(f"{PATH}/").strip("/")):
        return name
    given = [value for name, value in scope["headers"] if name == HEADER]
    return (given[0].decode("latin-1").strip() or None) if given else None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build_app(make: Make, first: str, token: str, names: list[str], page: ASGIApp | None = None) -> ASGIApp:
    """The ASGI application: the tools and the page. `names` are the hosts that requests may name in Host and Origin."""
    security = TransportSecuritySettings(
        allowed_hosts=[host for name in names for host in (name, f"{name}:*")],
        allowed_origins=[f"{scheme}://{name}{port}" for name in names for scheme in ("http", "https") for port in ("", ":*")],
    )
    tools = BearerToken(BySession(make, first, security), token)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        elsewhere = scope["type"] == "http" and not f"{scope['path']}/".startswith(f"{PATH}/")
        await (page if page is not None and elsewhere else tools)(scope, receive, send)

    return either


def names_of(host: str, more: list[str]) -> list[str]:
    """What requests to a server at `host` may name in Host and Origin."""
    return [*LOOPBACK, f"[{host}]" if ":" in host else host, *more]


def address_of(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def listen(host: str, port: int, remote: bool) -> socket.socket:
    """A listening socket. Raises AutoresearchError for an address outside this machine without `remote`, or one in use."""
    if not is_loopback(host) and not remote:
        raise AutoresearchError(
            f"{host} can be reached from other machines. Whoever has the token could then run code here, and it would travel "
            "unencrypted: prefer an SSH tunnel to 127.0.0.1. To bind it all the same, add --allow-remote."
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise AutoresearchError(f"{host}:{port} cannot be bound: {error}. Choose another port with --port.") from error


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serves until a signal ends it."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE, server_header=False
    )
    anyio.run(uvicorn.Server(config).serve, [listening])
