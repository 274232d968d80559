"""The process that is connected to a Ray cluster, and does there what a server asks for.

    python -P -m autoresearch_mcp.executors.connected DESCRIPTOR ADDRESS

It keeps Ray out of the server: a process whose cluster is gone is ended by Ray itself. Calls and answers go over the socket, until
its other end is closed.
"""

import socket
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from autoresearch_mcp.executors.cluster import Cluster
from autoresearch_mcp.executors.jobs import Jobs

OVER_HTTP = ("http://", "https://")
"""How the address of a cluster begins that takes jobs alone."""
WITHIN, PAUSE = 60.0, 2.0  # seconds in which a connection is tried again, and between two tries: a busy head refuses some


def serve(connection: Connection, cluster: Any) -> None:
    """Answers calls until the other end is gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            method, arguments = connection.recv()
            try:
                answer = ("answer", getattr(cluster, method)(*arguments))
            except Exception as error:  # Ray's own, of many kinds
                answer = ("error", f"{type(error).__name__}: {error}")
            connection.send(answer)


def main(descriptor: str, address: str) -> None:
    connection = Connection(socket.socket(fileno=int(descriptor)).detach())
    until = time.monotonic() + WITHIN
    while True:
        try:
            cluster = Jobs(address) if address.startswith(OVER_HTTP) else Cluster(address)
            break
        except Exception as error:
            if time.monotonic() + PAUSE > until:
                connection.send(("error", f"{type(error).__name__}: {error}"))
                return
        time.sleep(PAUSE)
    connection.send(("answer", None))
    serve(connection, cluster)


if __name__ == "__main__":
    main(*sys.argv[1:])
