"""Tries: keep the supervisor so busy with messages that it hears of the deadline too late.
Against: the clock
Level: any
Ends: timeout timeout
With: protocol, graph
"""

import json
import threading

declare(HONEST)
ask(op="data")
noise = b"\n" * 60_000 + b"[" * 60_000 + b"\n" + json.dumps({"op": "x", "more": list(range(100_000))}).encode() + b"\n"


def read():
    while server.recv(1 << 20):
        pass


threading.Thread(target=read, daemon=True).start()
while True:
    server.sendall(noise)
