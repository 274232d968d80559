"""Tries: make the evaluator allocate forty terabytes.
Ends: refused refused, crash error
With: protocol, graph
"""

submit(archive([TOKENS, W, node("aten.zeros.default", [10**13]), OUTPUT]))
