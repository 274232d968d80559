"""Tries: sleep through the free start-up time.
Against: the clock
Ends: timeout timeout_startup
"""

import time

time.sleep(600)
