"""Tries: freeze time.monotonic, so that the budget never ends.
Ends: timeout timeout
With: bigram
"""

import time

time.monotonic = lambda: 0.0
train(Model())
