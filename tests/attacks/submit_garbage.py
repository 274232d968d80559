"""Tries: submit bytes that are no model.
Ends: refused refused
With: protocol, graph
"""

submit(os.urandom(5000))
