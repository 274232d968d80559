"""Tries: stay in start-up, where learning is free, for longer than an honest run does.
Against: the clock
Level: any
Ends: timeout timeout_startup
With: bigram
"""

import time

declare(Model())
time.sleep(60)
