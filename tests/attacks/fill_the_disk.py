"""Tries: write until the disk is full.
Against: the host
Ends: crash killed, crash error
"""

block = os.urandom(1 << 20) if (os := __import__("os")) else b""
number = 0
while True:
    with open(f"fill{number}", "wb") as file:
        for _ in range(100):
            file.write(block)
    number += 1
