"""Tries: ignore every signal and stop itself, so that it neither ends nor hears.
Against: the score
Ends: timeout timeout_startup
"""

import os
import signal

for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGSTOP)
