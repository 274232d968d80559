"""Tries: make namespaces, mount over files, change the root.
Against: the host
Ends: crash error
Needs: landlock
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
for name, arguments in (
    ("unshare", (0x10000000,)),
    ("mount", (b"none", b"/usr", b"tmpfs", 0, None)),
    ("chroot", (b"/",)),
    ("setns", (3, 0)),
):
    if getattr(libc, name)(*arguments) == 0:
        print("BREACH:", name)
