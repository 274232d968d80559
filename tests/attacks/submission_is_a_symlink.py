"""Tries: hand over the validation tokens themselves, through a symbolic link.
Ends: crash error
With: protocol
"""

ask(op="data")
ask(op="trained", digests=[])
os.symlink("@DATA@/val.bin", "submission.safetensors")
print(ask(op="submit"))
