"""Tries: have the evaluator read the validation tokens through aten::from_file.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, node("aten.from_file.default", "@DATA@/val.bin", False, 100), OUTPUT]))
