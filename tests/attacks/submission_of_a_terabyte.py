"""Tries: submit a sparse file of a terabyte.
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


ask(op="data")
ask(op="trained", digests=[])
with open("submission.safetensors", "wb") as file:
    file.truncate(1 << 40)
print(ask(op="submit"))
