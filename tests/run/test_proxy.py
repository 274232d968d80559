"""A network of named hosts: those are reached, by HTTP and by CONNECT, and nobody else is; and a run without it reaches nobody."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoresearch_mcp.errors import TaskError
from autoresearch_mcp.loop.trial import run_trial
from autoresearch_mcp.run.proxy import CONNECTIONS, Proxy, is_named
from autoresearch_mcp.task import parse_task
from conftest import TOY

NOTHING_RUNS = TOY.replace(TOY[TOY.index("[run]") : TOY.index("[metric]")], "")
ASKS = """
import os, socket, urllib.error, urllib.request

os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
found = 0
for port in {ports}:
    try:
        found += int(urllib.request.urlopen(f"http://127.0.0.1:{{port}}/number", timeout=5).read())
    except urllib.error.HTTPError as error:
        print(error.code, error.read())
    except OSError as error:
        print(error)
try:
    socket.create_connection(("127.0.0.1", {ports}[0]), timeout=2)
    found += 1000
except OSError as error:
    print(error)
print(found)
"""


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.path == "/number" and "proxy" not in str(self.headers).lower()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"7")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Of two servers on this machine."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_address[1] for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.needs("bubblewrap")
def test_scoring_reaches_the_hosts_that_are_named_and_no_other(task_folder: Callable[..., Path], ports: list[int]):
    toml = NOTHING_RUNS.replace("[metric]\n", f'[metric]\nnetwork = ["127.0.0.1:{ports[0]}"]\n')
    (tried,) = run_trial(task_folder(toml, score__py=ASKS.format(ports=ports))).runs
    assert tried.ended.score == 7, tried
    assert f"connect 127.0.0.1:{ports[1]}: not among the hosts that network names" in tried.refused
    assert "403" in tried.scoring


@pytest.mark.slow
@pytest.mark.needs("bubblewrap")
@pytest.mark.parametrize("network", ['"none"', '"loopback"'])
def test_without_names_nobody_is_reached(task_folder: Callable[..., Path], ports: list[int], network: str):
    toml = NOTHING_RUNS.replace("[metric]\n", f"[metric]\nnetwork = {network}\n")
    assert run_trial(task_folder(toml, score__py=ASKS.format(ports=ports))).scores == [0]


@pytest.mark.needs("landlock")
def test_a_level_that_cannot_refuses(task_folder: Callable[..., Path], force: Callable[[str], None]):
    force("landlock")
    toml = NOTHING_RUNS.replace("[metric]\n", '[metric]\nnetwork = ["example.org"]\n')
    ended = run_trial(task_folder(toml)).runs[0].ended
    assert ended.failure == "refused" and "wants a network" in ended.excerpt and "bubblewrap" in ended.excerpt


@pytest.mark.slow
def test_a_tunnel_is_passed_on_unread(tmp_path: Path, ports: list[int]):
    refused: list[str] = []
    proxy = Proxy(tmp_path / "hosts", [f"localhost:{ports[0]}"], refused.append)
    try:
        for host, port, answer in (("localhost", ports[0], b"200"), ("localhost", ports[1], b"403"), ("evil", ports[0], b"403")):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "hosts"))
                client.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert client.recv(1000).split()[1] == answer
                if answer == b"200":
                    client.sendall(b"GET /number HTTP/1.0\r\n\r\n")
                    assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"7")
        for nonsense in (b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n", b"x" * 200_000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "hosts"))
                try:
                    client.sendall(nonsense)
                    assert client.recv(1000).startswith((b"HTTP/1.1 400", b""))
                except OSError:
                    continue
    finally:
        proxy.close()
    assert refused == [f"localhost:{ports[1]}", f"evil:{ports[0]}"]


@pytest.mark.parametrize(
    ("hosts", "host", "port", "named"),
    [
        (["example.org"], "Example.ORG.", 443, True),
        (["example.org"], "example.org", 22, False),
        (["example.org"], "a.example.org", 443, False),
        (["*.example.org"], "a.b.example.org", 80, True),
        (["*.example.org"], "example.org", 443, False),
        (["*.example.org"], "evilexample.org", 443, False),
        (["example.org:8443"], "example.org", 8443, True),
        (["example.org:8443"], "example.org", 443, False),
        (["*.example.org"], "localhost\0.example.org", 443, False),
        (["*.example.org"], "evil@x.example.org", 443, False),
        (["*.example.org"], "%6c.example.org", 443, False),
    ],
)
def test_names_of_hosts(hosts: list[str], host: str, port: int, named: bool):
    assert is_named(hosts, host, port) is named


@pytest.mark.parametrize("network", ['"all"', "[]", '["http://example.org"]', '["*"]', '["a b"]'])
def test_what_names_no_host_is_refused(network: str):
    with pytest.raises(TaskError, match="network"):
        parse_task(NOTHING_RUNS.replace("[metric]\n", f"[metric]\nnetwork = {network}\n"))


def test_a_flood_of_connections_is_bounded(tmp_path: Path):
    proxy = Proxy(tmp_path / "hosts", ["example.org"], lambda host: None)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS + 40)]
    try:
        before = threading.active_count()
        for client in clients:
            client.connect(str(tmp_path / "hosts"))
            client.settimeout(5)
        assert clients[-1].recv(1) == b"", "closed, and not answered"
        assert threading.active_count() - before <= CONNECTIONS
    finally:
        for client in clients:
            client.close()
        proxy.close()
