"""Tries: make the supervisor wait for ever on a named pipe.
Ends: crash error
With: protocol
"""

ask(op="data")
ask(op="trained", digests=[])
os.mkfifo("submission.safetensors")
print(ask(op="submit"))
