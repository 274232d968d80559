"""Tries: have the evaluator call os.system.
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("os.system", "touch @SECRET@.pwned"), OUTPUT]))
