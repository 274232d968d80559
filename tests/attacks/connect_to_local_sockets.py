"""Tries: connect to a unix socket in the file system and to an abstract one.
Ends: crash error
Needs: bubblewrap
"""

import socket

for address in ("@SECRET@.sock", "\0@ABSTRACT@"):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(address)
            print("BREACH: connected", repr(address))
        except OSError as error:
            print(repr(address), error)
