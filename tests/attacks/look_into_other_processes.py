"""Tries: read environment, memory and files of the supervisor and of the user's other processes.
Against: the host
Ends: crash error
Needs: landlock
"""

import glob
import os

for pid in ("@PID@", str(os.getppid())):
    for name in ("environ", "mem", "maps", "cwd/autoresearch.toml", "root@SECRET@"):
        try:
            content = open(f"/proc/{pid}/{name}", "rb").read(10)
            if pid == "@PID@" or b"AUTORESEARCH" not in content:
                print("BREACH: read", pid, name) if content and int(pid) > 2 else None
        except OSError as error:
            print(pid, name, error)
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        if b"VICTIM" in open(path, "rb").read():
            print("BREACH: saw", path)
    except OSError:
        pass
