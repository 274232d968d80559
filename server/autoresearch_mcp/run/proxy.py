"""A way to named hosts and to nobody else, for a sandbox that has no network: an HTTP proxy on a socket file, outside.

Inside, relay.py listens on the loopback device and passes on to the socket file; programs find it by HTTP_PROXY and HTTPS_PROXY, as
most do. Names are looked up here, so that no other query leaves the sandbox, and TLS goes through unread: what is ruled over is
whom a command talks to, not what it says. A host that answers for others (a content network, a proxy) answers for them here too.
"""

import contextlib
import re
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

HEAD_BYTES, BLOCK = 1 << 16, 1 << 16
SECONDS = 30.0  # that a host may take to answer the connection, and a request to be whole
NAME = re.compile(r"[a-z0-9:][a-z0-9.:_-]*")
CONNECTIONS, IDLE = 64, 300.0  # at once; seconds in which nothing comes from either side
PORTS = (80, 443)  # of a host that is named without one
REQUEST = re.compile(r"([A-Z]+) (\S+) (HTTP/1\.[01])")
ABSOLUTE = re.compile(r"http://([^/]+)(/.*)?")


def is_named(hosts: Sequence[str], host: str, port: int) -> bool:
    """Whether a host and its port are among those named: `api.example.org`, `*.example.org`, `localhost:8080`."""
    host = host.lower()
    if not NAME.fullmatch(host):  # what is looked up must be what is compared: no NUL, no user before an @, no %
        return False
    host = host.rstrip(".")
    for named in hosts:
        name, _, at = named.lower().partition(":")
        fits = host.endswith(name[1:]) if name.startswith("*.") else host == name
        if fits and (port == int(at) if at else port in PORTS):
            return True
    return False


class Proxy:
    """Listens from the moment it is made until `close`. `refused` is told of hosts that are not named."""

    def __init__(self, path: Path, hosts: Sequence[str], refused: Callable[[str], None]):
        self.path, self._hosts, self._refused = path, hosts, refused
        outer = self

        free = threading.Semaphore(CONNECTIONS)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    with contextlib.suppress(OSError, ValueError):
                        outer.answer(self.request)
                finally:
                    free.release()

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def verify_request(self, request: object, client_address: object) -> bool:
                return free.acquire(blocking=False)

        path.unlink(missing_ok=True)
        self._server = Server(str(path), Handler)
        path.chmod(0o666)  # a run with an id of its own
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)

    def answer(self, client: socket.socket) -> None:
        """One connection of a program inside. Raises OSError."""
        client.settimeout(SECONDS)
        head, rest = _head(client)
        lines = head.decode("latin-1").split("\r\n")
        found = REQUEST.fullmatch(lines[0])
        if found is None:
            return _say(client, 400, "this is no request for a proxy")
        method, target, version = found.groups()
        if method == "CONNECT":
            where, path = target, ""
        else:
            absolute = ABSOLUTE.fullmatch(target)
            if absolute is None:
                return _say(client, 400, "a proxy needs the whole address, http://...")
            where, path = absolute.group(1), absolute.group(2) or "/"
        host, _, port = where.rpartition(":") if re.search(r":\d+$", where) else (where, "", "80")
        if not is_named(self._hosts, host.strip("[]"), int(port)):
            self._refused(f"{host}:{port}")
            return _say(client, 403, f"{host}:{port} is not among the hosts that network names")
        try:
            server = socket.create_connection((host.strip("[]"), int(port)), SECONDS)
        except OSError as error:
            return _say(client, 502, f"{host}:{port} does not answer: {error}")
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + rest[:0])
                server.sendall(rest)
            else:
                kept = [line for line in lines[1:] if line and not line.lower().startswith(("proxy-", "connection:"))]
                server.sendall(
                    "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode("latin-1") + rest
                )
            pass_on(client, server)
        return None


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and what has come of the rest. Raises OSError."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = client.recv(BLOCK)
        if not block or len(data) > HEAD_BYTES:
            raise OSError("no request")
        data += block
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _say(client: socket.socket, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    client.sendall(f"HTTP/1.1 {status} refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one side has closed. Raises OSError."""
    for end in (one, other):
        end.settimeout(None)
    while ready_ones := select.select([one, other], [], [], IDLE)[0]:
        for ready in ready_ones:
            block = ready.recv(BLOCK)
            if not block:
                return
            (other if ready is one else one).sendall(block)
