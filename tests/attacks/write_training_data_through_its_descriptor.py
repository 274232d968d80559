"""Tries: open the handed-over descriptor again, for writing, through /proc.
Ends: crash error
Needs: landlock
"""

import json
import os
import socket

server = socket.socket(fileno=int(os.environ["AUTORESEARCH_SOCKET"]))


def ask(**message):
    server.sendall(json.dumps(message).encode() + b"\n")
    data, descriptors, _, _ = socket.recv_fds(server, 1 << 16, 4)
    return json.loads(data), descriptors


_, (data,) = ask(op="data")
for attempt in (
    lambda: os.fchmod(data, 0o666),
    lambda: os.ftruncate(data, 0),
    lambda: os.write(os.open(f"/proc/self/fd/{data}", os.O_RDWR), b"pwned"),
):
    try:
        attempt()
        print("done")
    except OSError as error:
        print(error)
