"""Tries: make the supervisor wait for ever on a named pipe.
Ends: crash error
With: protocol, graph
"""

declare(HONEST)
ask(op="data")
ask(op="trained", digests=DIGESTS)
os.mkfifo("submission.safetensors")
print(ask(op="submit"))
