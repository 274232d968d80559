"""Writes a graph by hand and submits it. Stands behind protocol.py."""

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
