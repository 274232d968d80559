"""Tries: make the supervisor wait for ever on a named pipe.
Against: the evaluator
Ends: crash error
With: protocol, graph
"""

declare(HONEST)
ask(op="data")
ask(op="trained", digests=DIGESTS)
os.mkfifo("submission.safetensors")
print(ask(op="submit"))
