"""Tries: submit the declared name with another shape.
Ends: refused refused
With: protocol, graph
"""

submit(safetensors({"table": ([VOCAB * VOCAB], TABLE)}))
