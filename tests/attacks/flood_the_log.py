"""Tries: print without end.
Ends: timeout timeout_startup
"""

import sys

while True:
    sys.stdout.write("spam " * 20000 + "\n")
