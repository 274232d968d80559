"""Tries: submit a sparse file of a terabyte.
Against: the evaluator
Ends: crash error
With: protocol, graph
"""

declare(HONEST)
ask(op="data")
ask(op="trained", digests=DIGESTS)
with open("submission.safetensors", "wb") as file:
    file.truncate(1 << 40)
print(ask(op="submit"))
