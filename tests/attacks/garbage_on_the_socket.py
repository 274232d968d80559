"""Tries: send bytes that are no message, a huge one, and one nested too deep.
Against: the score
Ends: crash error
With: protocol
"""

try:
    server.sendall(b"\xff\x00\n" + b"[" * 100000 + b"\n" + b"x" * (3 << 20))
except OSError:
    pass
