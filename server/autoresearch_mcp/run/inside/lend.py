"""Opens files and sends their read-only descriptors over a socket. Standard library only: it runs inside the sandbox.

    python -I -S lend.py SOCKET PATH...

Under bubblewrap the files are mounted read-only where this runs, and a descriptor keeps its mount: whoever receives it cannot
open the file for writing by way of /proc/self/fd, as the owner of the file otherwise could.
"""

import os
import socket
import sys


def main(descriptor: int, paths: list[str]) -> None:
    with socket.socket(fileno=descriptor) as receiver:
        socket.send_fds(receiver, [b"."], [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
