"""Tries: connect to a unix socket in the file system and to an abstract one.
Against: the host
Ends: crash error
Needs: landlock
"""

import socket

for address in ("@SECRET@.sock", "\0@ABSTRACT@"):
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address)
            print("BREACH: connected", repr(address))
    except OSError as error:
        print(repr(address), error)
