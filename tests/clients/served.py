"""The real HTTP server in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import anyio.from_thread
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from autoresearch_mcp.loop.session import Session
from conftest import wait_for


@dataclass
class Served:
    url: str
    token: str
    process: subprocess.Popen[str]

    @contextmanager
    def without_token(self) -> Iterator[str]:
        """A URL that needs no token, for programs that cannot send one: a proxy on loopback adds it."""

        async def forward(request: Request) -> StreamingResponse:
            headers = [(name, value) for name, value in request.headers.raw if name not in (b"content-length", b"connection")]
            client: httpx2.AsyncClient = request.app.state.client
            sent = client.build_request(
                request.method,
                self.url,
                headers=[*headers, (b"authorization", f"Bearer {self.token}".encode())],
                content=await request.body(),
            )
            answer = await client.send(sent, stream=True)
            passed = {name: value for name, value in answer.headers.items() if name not in ("content-length", "transfer-encoding")}
            return StreamingResponse(answer.aiter_raw(), answer.status_code, passed)

        app = Starlette(routes=[Route("/mcp", forward, methods=["GET", "POST", "DELETE"])])
        app.state.client = httpx2.AsyncClient(timeout=60)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1))
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.start_task_soon(server.serve)
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
            server.should_exit = True


@contextmanager
def serving(session: Session) -> Iterator[Served]:
    """`serve --http` on a free port, on the session's workspace."""
    command = [sys.executable, "-m", "autoresearch_mcp.cli", "serve", "--http", "--port", "0", "-w", str(session.workspace.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            wait_for(session.workspace.token_path.exists)
            yield Served(url, session.workspace.token_path.read_text(), process)
        finally:
            process.terminate()
