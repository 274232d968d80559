"""Tries: start processes until there are more than allowed.
Against: the host
Ends: crash killed, crash error, timeout timeout_startup
"""

import os
import time

for _ in range(400):
    try:
        if os.fork() == 0:
            time.sleep(600)
    except OSError as error:
        print(error)
        break
time.sleep(600)
