"""Tries: submit a model file that is cut in the middle.
Against: the score
Ends: refused refused
With: protocol, graph
"""

submit(MODEL[: len(MODEL) // 2])
