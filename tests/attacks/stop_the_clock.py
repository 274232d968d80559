"""Tries: freeze time.monotonic, so that the budget never ends.
Against: the clock
Ends: timeout timeout
With: bigram
"""

import time

time.monotonic = lambda: 0.0
train(Model())
