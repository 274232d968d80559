"""Tries: submit straight out of training, with no word on the weights.
Against: the score
Ends: refused refused
With: protocol, graph
"""

declare(HONEST)
ask(op="data")
with open("submission.safetensors", "wb") as file:
    file.write(MODEL)
print(ask(op="submit"))
