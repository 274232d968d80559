"""Tries: speak the control protocol by hand and claim a score without a model.
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
ask(op="trained", digests=[], score=0.01)
print(ask(op="submit", score=0.01, result={"score": 0.01}))
print(ask(op="score", score=0.01))
print(ask(op="ended", outcome="scored", score=0.01))
