"""Tries: attach to the user's other processes by ptrace and by process_vm_readv.
Against: the host
Ends: crash error
Needs: landlock
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, @PID@, 0, 0) == 0:
    print("BREACH: attached")
if libc.process_vm_readv(@PID@, 0, 0, 0, 0, 0) == 0:
    print("BREACH: readv")
