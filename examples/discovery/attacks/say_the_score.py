# Tries: to be the one who says the score: on both streams, on every open file, with a clean exit before any list is asked for.
# Ends: refused, "gave no list" or "before it was asked"
import os
from contextlib import suppress

ANSWER = b'{"score": 100.0, "holdout": 100.0, "details": {"ndcg": 1.0, "precision": 1.0}}\n'

print(ANSWER.decode())
for descriptor in range(64):
    with suppress(OSError):
        os.write(descriptor, ANSWER)
os._exit(0)
