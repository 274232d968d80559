"""Tries: submit the declared name with another shape.
Against: the score
Ends: refused refused
With: protocol, graph
"""

submit(safetensors({"table": ([VOCAB * VOCAB], TABLE)}))
