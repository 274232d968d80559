"""Tries: print without end.
Against: the host
Ends: timeout timeout_startup
"""

import sys

while True:
    sys.stdout.write("spam " * 20000 + "\n")
