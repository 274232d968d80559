"""Tries: submit a model file that is cut in the middle.
Ends: refused refused
With: protocol, graph
"""

content = archive([TOKENS, W, node("aten.add.Tensor", {"ref": "w"}, 1), OUTPUT])
submit(content[: len(content) // 2])
