"""Tries: put a new graph, that answers by other operators, into the header of the submission.
Against: the score
Ends: score, refused refused
With: protocol, graph
"""

other = declaration([TOKENS, W, LOOKUP, {**node("aten.roll.default", {"ref": "x"}, [-1], [1]), "name": "y"}, OUTPUT])
graph = json.loads(other[8 : 8 + struct.unpack("<Q", other[:8])[0]])["__metadata__"]
submit(safetensors({"table": ([VOCAB, VOCAB], TABLE)}, graph))
