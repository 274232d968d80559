"""Tries: carry 300 KB of numbers into the graph as arguments of operators.
Against: the score
Ends: refused refused
With: protocol, graph
"""

numbers = list(range(40_000))
declare(declaration([TOKENS, W, {**node("aten.scalar_tensor.default", numbers)}, OUTPUT]))
