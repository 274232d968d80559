"""Tries: sleep through the free start-up time.
Against: the clock
Level: any
Ends: timeout timeout_startup
"""

import time

time.sleep(600)
