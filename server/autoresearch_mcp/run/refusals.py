"""What the sandbox refuses while a task is tried: which system call, and of files and programs which path. For trials alone.

In a trial the filter asks here instead of answering itself, and gets the answer that it would have given, from the same table; so
a trial is refused what a run is, only slower. What is not there because of the sandbox is seen by the paths that are opened: one
that exists outside, and that the rules do not show, is refused by its absence. Nothing here permits anything: what a call that goes
on may reach is still for mounts and Landlock to say.

https://docs.kernel.org/userspace-api/seccomp_filter.html#userspace-notification; Linux 5.5 for letting a call go on.
"""

import contextlib
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch_mcp import text
from autoresearch_mcp.run import syscalls, visible

RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
NOTICE, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=Qqii")
GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
PATH = {"open": 0, "execve": 0, "openat": 1, "execveat": 1, "creat": 0, "connect": -1}  # which argument is a path
AT_HAND = ("/proc", "/sys", "/dev")  # the sandbox has its own
FLAGS = {"open": 1, "openat": 2}  # which argument says whether to write
COMMON = ("/", "/etc/passwd", "/etc/group", "/etc/gitconfig", "/etc/inputrc", "/usr/share/locale/locale.alias")
"""What libraries look for and do without, so that to name it would mislead."""
MOST, LONGEST = 30, 4096  # refusals that are told; bytes of a path


class Refusals:
    """Of all processes of one run. `theirs` is the descriptor over which each of them says that it begins."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._ours, self.theirs = socket.socketpair()
        self._found: dict[str, None] = {}
        self._books: list[_Book] = []
        threading.Thread(target=self._take, daemon=True).start()

    @property
    def found(self) -> list[str]:
        """In the order in which they came, each once: `openat /home/me/data.csv`."""
        return list(self._found)

    def begin(self, calls: dict[str, bool], rules: visible.Rules, also: Sequence[str]) -> tuple[int, int]:
        """What the process that is started next may do and read: as `syscalls.actions` is told, real paths by rule, and some more.
        Returns what it is to be told: the descriptor, and its number.
        """
        self._books.append(_Book(syscalls.actions(platform.machine(), **calls), dict(rules), tuple(also)))
        return self.theirs.fileno(), (len(self._books) - 1) % 256

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()

    def _take(self) -> None:
        """Waits for processes that begin, each with the listener of its filter."""
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1)
            except OSError:
                return
            if not said:
                return
            for listener in descriptors:
                books = [book for number, book in enumerate(self._books) if number % 256 == said[0]]
                threading.Thread(target=self._listen, args=(listener, books[-1]), daemon=True).start()

    def _listen(self, listener: int, book: "_Book") -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        try:
            while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
                notice = bytearray(NOTICE.size)
                try:
                    fcntl.ioctl(listener, RECEIVE, notice)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EINTR):  # else it was killed meanwhile
                        return
                    continue
                number, pid, _, call, _, _, *arguments = NOTICE.unpack(notice)
                answer = self._answer(number, pid, call, arguments, book)
                with contextlib.suppress(OSError):  # it was killed meanwhile
                    fcntl.ioctl(listener, SEND, answer)
        finally:
            os.close(listener)

    def _answer(self, number: int, pid: int, call: int, arguments: list[int], book: "_Book") -> bytes:
        name = NAMES.get(call, f"system call {call}")
        action = syscalls.judge(book.actions.get(call, syscalls.REFUSE), arguments)
        path = _path(pid, arguments[PATH[name]]) if PATH.get(name, -1) >= 0 else ""
        if action == syscalls.ALLOW:
            if path.startswith("/") and self._hidden(path, book):
                self.note(f"{name} {path}")
            elif path.startswith("/") and name in FLAGS and arguments[FLAGS[name]] & os.O_ACCMODE and self._not_its_own(path):
                self.note(f"{name} {path}, to write")
            return ANSWER.pack(number, 0, 0, GO_ON)
        if action == syscalls.REFUSE:
            self.note(f"{name} {path}" if path else _with_kind(name, arguments))
        return ANSWER.pack(number, 0, -(action & 0xFFFF), 0)

    def note(self, refusal: str) -> None:
        if len(self._found) < MOST:
            self._found[" ".join(text.visible(refusal).split("\n"))] = None

    def _not_its_own(self, path: str) -> bool:
        """Whether a path lies where nothing can be written: outside of the folder, and no device."""
        return not any(Path(path).is_relative_to(place) for place in (self._folder, "/dev", "/proc"))

    def _hidden(self, path: str, book: "_Book") -> bool:
        """Whether a path exists, and not for the run."""
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):  # a link of another process's, a NUL
            return False
        if (
            path in COMMON
            or not os.path.exists(real)
            or Path(real).is_relative_to(self._folder)
            or Path(path).is_relative_to(self._folder)
        ):
            return False
        if any(Path(place).is_relative_to(allowed) for allowed in (*book.also, *AT_HAND) for place in (real, path)):
            return False
        return not next((book.rules[place] for place in (Path(real), *Path(real).parents) if place in book.rules), False)


@dataclass(frozen=True)
class _Book:
    """What one process and its children may do."""

    actions: dict[int, syscalls.Action]
    rules: dict[Path, bool]
    also: tuple[str, ...]


REFUSED_NAMES = {
    "x86_64": {41: "socket", 49: "bind", 42: "connect", 101: "ptrace", 165: "mount", 250: "keyctl", 272: "unshare", 321: "bpf",
               253: "inotify_init", 254: "inotify_add_watch", 294: "inotify_init1", 141: "setpriority", 29: "shmget"},
    "aarch64": {198: "socket", 200: "bind", 203: "connect", 117: "ptrace", 40: "mount", 219: "keyctl", 97: "unshare", 280: "bpf",
                26: "inotify_init1", 27: "inotify_add_watch", 140: "setpriority", 194: "shmget"},
}  # fmt: skip
"""Of calls that no list of ours names, those that programs ask for most. Facts of asm/unistd_64.h and asm-generic/unistd.h."""


def _names() -> dict[int, str]:
    machine = platform.machine()
    lists = (syscalls.ALLOWED, syscalls.CONNECTING, syscalls.CONDITIONAL, syscalls.PRETENDED, syscalls.NOT_THERE)
    named = [syscalls.table(each).get(machine, {}) for each in lists]
    return REFUSED_NAMES.get(machine, {}) | {number: name for each in named for name, number in each.items()}


NAMES = _names()
"""System calls of this machine by number."""


def _with_kind(name: str, arguments: list[int]) -> str:
    kinds = {2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet", 1: "unix"}
    return f"socket ({kinds.get(arguments[0] & 0xFF, 'another kind')}): runs have no network" if name == "socket" else name


def _path(pid: int, address: int) -> str:
    """The text at an address of a process; empty where it cannot be read."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            block = b""
            while b"\0" not in block and len(block) < LONGEST:  # to the end of a page at a time: the next may not be there
                block += memory.read(min(4096 - (address + len(block)) % 4096, LONGEST - len(block))) or b"\0"
    except (OSError, ValueError, OverflowError):
        return ""
    return os.fsdecode(block.split(b"\0")[0])
