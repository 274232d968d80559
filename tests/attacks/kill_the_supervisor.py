"""Tries: send signals to the supervisor, the user's other processes and everybody.
Against: the host
Ends: crash error, crash killed
Needs: landlock
"""

import os
import signal

for pid in (@PID@, os.getppid(), -1):
    try:
        if pid in (0, 1):
            continue
        os.kill(pid, signal.SIGKILL if pid > 0 else signal.SIGTERM)
        print("sent", pid)
    except OSError as error:
        print(pid, error)
