"""Tries: submit a file whose header claims tensors far beyond its end.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
submit(struct.pack("<Q", len(header)) + header)
