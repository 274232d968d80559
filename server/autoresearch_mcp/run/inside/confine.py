"""Applies kernel rules to itself and becomes the given command; they hold for it and all it starts, for good.

    python -I -S confine.py none|landlock --processes N --file-bytes N [--mark N] [--filter BASE64] [--user ID] [--group ID]...
                            [--capability N]... [--tell FD,N] [--read|--list|--write PATH]... -- COMMAND...

It runs inside the sandbox, alone of all our files, so it uses the standard library only and imports nothing of ours;
and what imports fast, since every run and every scoring begins with it.
Landlock: https://docs.kernel.org/userspace-api/landlock.html. Seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import binascii
import ctypes
import errno
import os
import resource
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
OPTIONS = (
    "--processes", "--file-bytes", "--mark", "--user", "--group", "--capability", "--tell", "--filter", "--read", "--list",
    "--write",
)  # fmt: skip
THREADS = 8  # tasks that a run may have for each process: the kernel counts threads
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

# --- Landlock ---

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system call numbers, the same on every architecture
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ACCESS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
FILE_ACCESS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what a rule on a single file may hold
NETWORK = 0b11  # binding and connecting TCP sockets, since ABI 4
SCOPED = 0b11  # abstract unix sockets and signals to outside, since ABI 6


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 or less where it offers none."""
    if sys.platform != "linux":
        return 0
    return LIBC.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def landlock(readable: list[str], listed: list[str], writable: list[str]) -> None:
    """Leaves access to the named files and folders only; of those `listed`, to the names in them."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    handled = ACCESS_BY_ABI[min(abi, 5)]
    attributes = struct.pack("QQQ", handled, NETWORK, SCOPED)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _checked(LIBC.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock ruleset")
    for paths, access in ((readable, EXECUTE | READ_FILE | READ_DIR), (listed, READ_DIR), (writable, handled)):
        for path in paths:
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there needs no rule
            allowed = access & handled
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                allowed &= FILE_ACCESS
            rule = struct.pack("=Qi", allowed, descriptor)
            _checked(LIBC.syscall(ADD_RULE, ruleset, 1, rule, 0), f"landlock rule for {path}")
            os.close(descriptor)
    _checked(LIBC.syscall(RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)


# --- seccomp ---


def seccomp(program: bytes) -> None:
    """Installs a filter on system calls that was made elsewhere, see run/syscalls.py."""
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _checked(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0), "seccomp")


SECCOMP, SET_MODE_FILTER, NEW_LISTENER = {"x86_64": 317, "aarch64": 277}, 1, 8


def asking_seccomp(program: bytes, teller: int, number: int) -> None:
    """The same for a filter that asks: hands its listener over the socket `teller`, with a number that tells whose it is."""
    import socket  # before the filter is on: what it opens would wait for the listener that nobody has yet

    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    with socket.socket(fileno=teller) as told:
        call = SECCOMP[os.uname().machine]
        listener = _checked(LIBC.syscall(call, SET_MODE_FILTER, NEW_LISTENER, header), "seccomp")
        socket.send_fds(told, [bytes([number])], [listener])
        os.close(listener)


# --- user id and capabilities ---

PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 24, 47, 2
CAPABILITIES = 64  # more than there are
CAPABILITY_VERSION = 0x20080522  # of the structures that capset takes: two words each


def drop_rights(user: int | None, groups: list[int], keep: list[int]) -> None:
    """Becomes `user`, where there is one, in no group but its own and `groups`, and gives up every capability but those in `keep`,
    which outlive the exec.
    """
    for number in range(CAPABILITIES):
        if number not in keep:
            LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # fails where it is not ours to drop: then it was not ours to gain
    if user is not None:
        _checked(LIBC.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    bits = sum(1 << number for number in keep)
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    sets = struct.pack("6I", bits, bits, bits, 0, 0, 0)  # effective, permitted, inheritable
    _checked(LIBC.capset(header, sets), "capabilities")
    for number in keep:
        _checked(LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0), "ambient capability")


# --- limits ---


def limits(processes: int, file_bytes: int, mark: int, user: int | None) -> None:
    """Number of tasks (of this user; the kernel exempts root), size of a file, no core files. One byte of core is no file, and
    unlike none it also keeps the kernel from handing crashes to a program of the system's, which would be work done at the run's
    wish: https://github.com/torvalds/linux/blob/v6.12/fs/coredump.c, "we use cprm.limit of 1 here as a special value".

    The mark is a limit that binds nobody, on time at realtime priority: every process of the run inherits it, and the filter keeps
    it from being changed.

    No limit on address space: CUDA reserves far more than it uses.
    """
    core = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    bounds = {resource.RLIMIT_RTTIME: mark} if mark else {}
    if user is not None or os.getuid() != 0:
        others = _tasks(os.getuid()) if user is None else 0  # an id of its own has no other tasks
        bounds[resource.RLIMIT_NPROC] = others + THREADS * processes
    for limit, bound in bounds.items():
        hard = resource.getrlimit(limit)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(limit, (bound, bound))


def _tasks(user: int) -> int:
    """How many tasks a user has, of those that can be seen: the kernel counts a desktop's among a run's."""
    found = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{process}").st_uid == user:
                found += len(os.listdir(f"/proc/{process}/task"))
        except OSError:
            continue
    return found


def main(arguments: list[str]) -> None:
    rules, *options = arguments[: arguments.index("--")]
    command = arguments[arguments.index("--") + 1 :]
    named: dict[str, list[str]] = {name: [] for name in OPTIONS}
    for name, value in zip(options[::2], options[1::2], strict=True):
        named[name].append(value)
    numbers = {name: [int(value) for value in named[name]] for name in OPTIONS[:6]}
    user = next(iter(numbers["--user"]), None)
    limits(numbers["--processes"][0], numbers["--file-bytes"][0], next(iter(numbers["--mark"]), 0), user)
    _checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if rules == "landlock":
        readable = [*named["--read"], f"/proc/{os.getpid()}"]
        landlock(readable, named["--list"], named["--write"])  # while all paths can be reached
        drop_rights(user, numbers["--group"], numbers["--capability"])
    for program in map(binascii.a2b_base64, named["--filter"]):
        if named["--tell"]:
            teller, number = map(int, named["--tell"][0].split(","))
            asking_seccomp(program, teller, number)
        else:
            seccomp(program)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
