"""Tries: sleep through the free start-up time.
Ends: timeout timeout_startup
"""

import time

time.sleep(600)
