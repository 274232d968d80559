"""Tries: look for descriptors that the supervisor left open: the ledger, locks, data.
Against: the host
Ends: crash error
"""

import os

for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        continue
    print(name, target)
    if any(word in target for word in ("ledger", ".lock", ".bin", ".json", "spec")):
        print("BREACH: inherited", target)
