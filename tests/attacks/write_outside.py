"""Tries: write to files of the host and of the workspace.
Against: the host
Ends: crash error
Needs: landlock
"""

import os

for path in (
    "@SECRET@",
    "@SECRET@.pwned",
    "@WORKSPACE@/train.py",
    "@WORKSPACE@/.autoresearch/ledger.db",
    "@DATA@/val.bin",
    "/tmp/pwned",
):
    try:
        open(path, "r+b" if os.path.exists(path) else "wb").write(b"pwned")
        print("BREACH: wrote", path)
    except OSError as error:
        print(path, error)
