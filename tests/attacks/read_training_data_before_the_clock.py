"""Tries: find the training tokens without asking for them.
Against: the clock
Ends: crash error
Needs: landlock
"""

import os

for folder in ("@DATA@", "/", os.getcwd()):
    for root, _, names in os.walk(folder):
        if root.count("/") > 6 and not root.startswith("@DATA@"):
            continue
        for name in names:
            if name in ("train.bin", "val.bin", "holdout.bin"):
                try:
                    open(os.path.join(root, name), "rb").read(1)
                    print("BREACH: read", root, name)
                except OSError:
                    pass
