"""Tries: submit bytes that are no model.
Ends: refused refused
"""

import json
import os
import socket

server = socket.socket(fileno=int(os.environ["AUTORESEARCH_SOCKET"]))


def ask(**message):
    server.sendall(json.dumps(message).encode() + b"\n")
    data, descriptors, _, _ = socket.recv_fds(server, 1 << 16, 4)
    return json.loads(data), descriptors


import struct


def archive(nodes, shape=(32, 64)):
    """A safetensors file with a graph written by hand and one tensor, w = [0.0]."""
    graph = json.dumps({"format": 1, "shape": list(shape), "autocast": None, "nodes": nodes})
    header = json.dumps({"__metadata__": {"graph": graph}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def node(operator, *args, **kwargs):
    return {"name": "x", "op": operator, "args": list(args), "kwargs": kwargs}


TOKENS = {"name": "t", "op": "tokens", "of": None}
W = {"name": "w", "op": "tensor", "of": "w"}
OUTPUT = {"name": "output", "op": "output", "args": [[{"ref": "x"}]]}


def submit(content):
    ask(op="data")
    ask(op="trained", digests=[])
    with open("submission.safetensors", "wb") as file:
        file.write(content)
    print(ask(op="submit"))


submit(os.urandom(5000))
