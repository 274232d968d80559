"""Tries: have the model scored on one sequence instead of a batch.
Against: the score
Ends: refused refused
With: protocol, graph
"""

declare(declaration([TOKENS, W, LOOKUP, OUTPUT], shape=(1, 1)))
