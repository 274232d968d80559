"""Tries: let a child of its own go on learning after "trained", and put its weights in the place of the submission again and again.
Against: the clock
Ends: refused refused, score
With: protocol, graph
"""

import os

declare(HONEST)
ask(op="data")
if os.fork() == 0:
    os.setsid()
    while True:
        for table in (TABLE, bytes([0, 0, 128, 63]) * (VOCAB * VOCAB)):
            with open("later", "wb") as file:
                file.write(safetensors({"table": ([VOCAB, VOCAB], table)}))
            os.replace("later", "submission.safetensors")
while not os.path.exists("submission.safetensors"):
    pass
ask(op="trained", digests=DIGESTS)
print(ask(op="submit"))
