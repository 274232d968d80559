"""Streamable HTTP for many clients of one workspace: the SDK's transport behind a bearer token, on loopback by default."""

import hmac
import ipaddress
import socket

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from autoresearch_mcp.errors import AutoresearchError

PATH = "/mcp"
MAX_REQUEST_BYTES = 4 << 20  # a patch of 1 MiB, escaped as JSON, and room
GRACE = 2  # seconds that open requests have when the server is told to end; runs go on without it
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


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


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build_app(server: MCPServer, token: str, names: list[str]) -> ASGIApp:
    """The ASGI application. `names` are the hosts that requests may name in Host and Origin."""
    security = TransportSecuritySettings(
        allowed_hosts=[host for name in names for host in (name, f"{name}:*")],
        allowed_origins=[f"{scheme}://{name}{port}" for name in names for scheme in ("http", "https") for port in ("", ":*")],
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH, max_request_body_size=MAX_REQUEST_BYTES, transport_security=security
    )
    return BearerToken(app, token)


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


def serve(server: MCPServer, token: str, listening: socket.socket, names: list[str]) -> None:
    """Serves until a signal ends it."""
    app = build_app(server, token, names)
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE, server_header=False
    )
    anyio.run(uvicorn.Server(config).serve, [listening])
