"""Tries: open the kernel's settings for writing, one of which names a program that the kernel starts as root outside every sandbox.
Against: the host
Ends: crash error
Needs: landlock
"""

import os

for name in ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/vm/swappiness", "sysrq-trigger", "pressure/memory", "self/oom_score_adj"):
    try:
        os.close(os.open(f"/proc/{name}", os.O_WRONLY))  # and nothing written: it is the host's
        print("BREACH: could write", name)
    except OSError as error:
        print(name, error)
