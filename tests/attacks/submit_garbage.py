"""Tries: submit bytes that are no model.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

submit(os.urandom(5000))
