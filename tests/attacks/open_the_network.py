"""Tries: reach a server on this machine over TCP, UDP, IPv6 and a raw packet socket.
Against: the host
Ends: crash error
Needs: landlock
"""

import socket

for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", @PORT@)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", @PORT@)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::1", @PORT@)),
    (socket.AF_INET, socket.SOCK_RAW, ("127.0.0.1", 0)),
):
    try:
        with socket.socket(family, kind) as sock:
            sock.connect(address)
            sock.send(b"hello")
            print("BREACH: sent", family, kind)
    except OSError as error:
        print(family, kind, error)
