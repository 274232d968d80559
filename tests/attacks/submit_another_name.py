"""Tries: submit a tensor that was never declared beside the declared one.
Against: the score
Ends: refused refused
With: protocol, graph
"""

import hashlib

more = {"table": ([VOCAB, VOCAB], TABLE), "other": ([1], bytes(4))}
submit(safetensors(more), DIGESTS | {"other": hashlib.sha256(bytes(4)).hexdigest()})
