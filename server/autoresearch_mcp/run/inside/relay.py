"""Inside a sandbox whose network is its own loopback device: listens there, passes on to a socket file, and becomes the command.

    python -I -S relay.py SOCKET -- COMMAND...

The socket file leads to the proxy outside (run/proxy.py), which alone decides who may be reached: nothing here is trusted.
"""

import os
import select
import socket
import sys
import threading

BLOCK = 1 << 16


def pass_on(client: socket.socket, path: str) -> None:
    try:
        with client, socket.socket(socket.AF_UNIX) as proxy:
            proxy.connect(path)
            while True:
                for ready in select.select([client, proxy], [], [])[0]:
                    block = ready.recv(BLOCK)
                    if not block:
                        return
                    (proxy if ready is client else client).sendall(block)
    except OSError:
        return


def main(path: str, command: list[str]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if os.fork() == 0:
        if os.fork():  # so that the command has no child that it did not start
            os._exit(0)
        for descriptor in range(1024):
            if descriptor != listener.fileno():
                try:
                    os.close(descriptor)
                except OSError:
                    continue
        while True:
            threading.Thread(target=pass_on, args=(listener.accept()[0], path), daemon=True).start()
    os.wait()
    listener.close()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = os.environ[name.lower()] = address
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"
    os.environ["NODE_USE_ENV_PROXY"] = "1"
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3:])
