"""Tries: allocate more memory than allowed.
Against: the host
Ends: crash oom, crash killed
"""

import time

blocks = []
while True:
    blocks.append(bytearray(b"x") * (64 << 20))
    time.sleep(0.02)
