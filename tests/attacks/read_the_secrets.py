"""Tries: read validation and holdout tokens, the ledger, a home, other runs.
Against: sealed data
Ends: crash error
Needs: landlock
"""

import glob

for pattern in (
    "@DATA@/*.bin",
    "@WORKSPACE@/.autoresearch/*",
    "@WORKSPACE@/*",
    "@SECRET@",
    "/root/.*",
    "/home/*/.*",
    "/etc/shadow",
):
    for path in glob.glob(pattern) or [pattern]:
        try:
            open(path, "rb").read(10)
            print("BREACH: read", path)
        except OSError as error:
            print(path, error)
