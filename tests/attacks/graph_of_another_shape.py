"""Tries: have the model scored on one sequence instead of a batch.
Ends: refused refused
With: protocol, graph
"""

submit(archive([TOKENS, W, node("aten.add.Tensor", {"ref": "w"}, 1), OUTPUT], shape=(1, 1)))
