"""Tries: send bytes that are no message, a huge one, and one nested too deep.
Ends: crash error
"""

import json
import os
import socket

server = socket.socket(fileno=int(os.environ["AUTORESEARCH_SOCKET"]))


def ask(**message):
    server.sendall(json.dumps(message).encode() + b"\n")
    data, descriptors, _, _ = socket.recv_fds(server, 1 << 16, 4)
    return json.loads(data), descriptors


try:
    server.sendall(b"\xff\x00\n" + b"[" * 100000 + b"\n" + b"x" * (3 << 20))
except OSError:
    pass
