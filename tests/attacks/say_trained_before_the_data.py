"""Tries: end training before it began, so that its clock never runs, and ask for the data then.
Against: the clock
Level: any
Ends: refused refused
With: protocol, graph
"""

import hashlib

declare(HONEST)
ask(op="trained", digests=DIGESTS)
reply, descriptors = ask(op="data")
if descriptors:
    print("BREACH: training data without a clock", reply)
better = bytes([0, 0, 128, 63]) * (VOCAB * VOCAB)
ask(op="trained", digests={"table": hashlib.sha256(better).hexdigest()})
with open("submission.safetensors", "wb") as file:
    file.write(safetensors({"table": ([VOCAB, VOCAB], better)}))
print(ask(op="submit"))
