"""Tries: open files for neither reading nor writing, for which Landlock asks for no right, and older kernels let cut them off.
Against: the host
Ends: crash error
Needs: landlock
"""

import os

NEITHER = 3
for path in ("@SECRET@", "@WORKSPACE@/autoresearch.toml", os.__file__, "/dev/ptmx", "/dev/fuse", "/dev/tty"):
    for flags in (NEITHER, NEITHER | os.O_TRUNC, NEITHER | os.O_NONBLOCK):
        try:
            os.open(path, flags)
            print("BREACH: opened", path)
        except OSError as error:
            print(path, error)
