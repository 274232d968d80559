"""Tries: hand over the validation tokens themselves, through a symbolic link.
Against: the evaluator
Ends: crash error
With: protocol, graph
"""

declare(HONEST)
ask(op="data")
ask(op="trained", digests=DIGESTS)
os.symlink("@DATA@/val.bin", "submission.safetensors")
print(ask(op="submit"))
