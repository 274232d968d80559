"""Tries: submit a file that says its header is 2**60 bytes long.
Against: the evaluator
Ends: refused refused
With: protocol, graph
"""

submit(struct.pack("<Q", 1 << 60) + b"{}")
