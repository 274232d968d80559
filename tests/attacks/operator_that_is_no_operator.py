"""Tries: have the evaluator call os.system.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("os.system", "touch @SECRET@.pwned"), OUTPUT]))
