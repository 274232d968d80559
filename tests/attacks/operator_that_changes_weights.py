"""Tries: keep state in a weight through an in-place operator.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("aten.add_.Tensor", {"ref": "w"}, 1), OUTPUT]))
