"""Tries: submit a graph that refers to itself.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("aten.add.Tensor", {"ref": "x"}, 1), OUTPUT]))
