"""Writes a declaration and a submission by hand. Stands behind protocol.py."""

import hashlib
import struct

VOCAB, SHAPE = 512, (32, 64)
TABLE = bytes(4 * VOCAB * VOCAB)
TENSORS = {"table": {"shape": [VOCAB, VOCAB], "dtype": "float32", "kind": "parameter"}}


def node(operator, *args, **kwargs):
    return {"name": "x", "op": operator, "args": list(args), "kwargs": kwargs, "autocast": None}


TOKENS = {"name": "t", "op": "tokens", "of": None}
W = {"name": "w", "op": "tensor", "of": "table"}
LOOKUP = node("aten.embedding.default", {"ref": "w"}, {"ref": "t"})
OUTPUT = {"name": "output", "op": "output", "args": [[{"ref": "x"}]]}


def safetensors(tensors, metadata=None):
    """Float32 tensors {name: (shape, bytes)} as a file."""
    header, content = {"__metadata__": metadata} if metadata else {}, b""
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def declaration(nodes, shape=SHAPE, tensors=TENSORS, values=None):
    graph = {"format": 2, "shape": list(shape), "autocast": None, "tensors": tensors, "nodes": nodes}
    return safetensors(values or {}, {"graph": json.dumps(graph)})


HONEST = declaration([TOKENS, W, LOOKUP, OUTPUT])
MODEL = safetensors({"table": ([VOCAB, VOCAB], TABLE)})
DIGESTS = {"table": hashlib.sha256(TABLE).hexdigest()}


def declare(content):
    with open("declaration.safetensors", "wb") as file:
        file.write(content)
    print(ask(op="declare"))


def submit(content, digests=DIGESTS):
    """Declares an honest model and submits something else."""
    declare(HONEST)
    ask(op="data")
    ask(op="trained", digests=digests)
    with open("submission.safetensors", "wb") as file:
        file.write(content)
    print(ask(op="submit"))
