"""Tries: say that training is over, go on learning, and say it again of better weights.
Against: the score
Ends: refused refused
With: protocol, graph
"""

import hashlib

declare(HONEST)
ask(op="data")
ask(op="trained", digests=DIGESTS)
better = bytes([0, 0, 128, 63]) * (VOCAB * VOCAB)
ask(op="trained", digests={"table": hashlib.sha256(better).hexdigest()})
with open("submission.safetensors", "wb") as file:
    file.write(safetensors({"table": ([VOCAB, VOCAB], better)}))
print(ask(op="submit"))
