"""Tries: end the first thread, by which the system shows what a process holds, and fill the memory in another.
Against: the host
Ends: crash killed, crash oom
"""

import ctypes
import platform
import sys
import threading
import time


def fill():
    time.sleep(0.3)
    blocks = []
    while True:
        blocks.append(bytearray(b"x") * (64 << 20))
        time.sleep(0.1)
        if len(blocks) > 40:
            print("BREACH: 2.5 GiB of memory and not ended", flush=True)
            blocks.clear()


threading.Thread(target=fill).start()
if sys.platform == "linux":
    ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
