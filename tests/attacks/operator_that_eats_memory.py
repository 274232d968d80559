"""Tries: make the evaluator allocate forty terabytes.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("aten.zeros.default", [10**13]), OUTPUT]))
