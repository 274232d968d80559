"""Applies kernel rules to itself and becomes the given command; they hold for it and all it starts, for good.

    python -I -S confine.py none|seccomp|landlock --processes N --file-bytes N [--read|--list|--write PATH]... -- COMMAND...

It runs inside the sandbox, alone of all our files, so it uses the standard library only and imports nothing of ours.
Landlock: https://docs.kernel.org/userspace-api/landlock.html. Seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import stat
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
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

# Refused with EPERM: looking into other processes, new namespaces and mounts, kernel interfaces with a history of holes, and
# io_uring, which would open sockets past this filter. Numbers of x86-64 and of AArch64's generic table.
REFUSED = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "fsopen": 430, "move_mount": 429,
        "open_tree": 428, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248,
        "request_key": 249, "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
        "delete_module": 176, "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "settimeofday": 164,
        "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159, "sethostname": 170, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_by_handle_at": 304, "syslog": 103, "quotactl": 179,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "pidfd_getfd": 438, "mount": 40,
        "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "fsopen": 430, "move_mount": 429,
        "open_tree": 428, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219, "add_key": 217,
        "request_key": 218, "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273,
        "delete_module": 106, "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89, "settimeofday": 170,
        "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_by_handle_at": 265, "syslog": 116, "quotactl": 60,
    },
}  # fmt: skip
AF_UNIX, NO_FAMILY = 1, 0xFFFFFFFF
SOCKET = {"x86_64": 41, "aarch64": 198}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF: ld [k]; jeq; jge; ret
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # system calls of the x32 ABI have other numbers, so they are refused as a whole


def seccomp(unix_sockets: bool) -> None:
    """Refuses the calls above and every new socket, but unix ones where nobody outside can be reached by them.

    Landlock does not rule over connecting to a unix socket by path, so there all are refused; socketpair stays.
    """
    machine = platform.machine()
    if machine not in REFUSED:
        return

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = [step(LOAD, ARCH), step(JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0), step(RETURN, KILL), step(LOAD, NUMBER)]
    program += [step(JUMP_AT_LEAST, X32, 0, 1), step(RETURN, DENY)]
    for number in REFUSED[machine].values():
        program += [step(JUMP_EQUAL, number, 0, 1), step(RETURN, DENY)]
    allowed = AF_UNIX if unix_sockets else NO_FAMILY
    program += [step(JUMP_EQUAL, SOCKET[machine], 0, 3), step(LOAD, FIRST_ARGUMENT)]
    program += [step(JUMP_EQUAL, allowed, 1, 0), step(RETURN, DENY), step(RETURN, ALLOW)]
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _checked(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0), "seccomp")


# --- limits ---


def limits(processes: int, file_bytes: int) -> None:
    """Process count (of this user; the kernel exempts root), size of a file, no core files, first choice when memory runs out.

    No limit on address space: CUDA reserves far more than it uses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if os.getuid() != 0:
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        bound = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (bound, bound))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def main(arguments: list[str]) -> None:
    rules, *options = arguments[: arguments.index("--")]
    command = arguments[arguments.index("--") + 1 :]
    named: dict[str, list[str]] = {"--processes": [], "--file-bytes": [], "--read": [], "--list": [], "--write": []}
    for name, value in zip(options[::2], options[1::2], strict=True):
        named[name].append(value)
    limits(int(named["--processes"][0]), int(named["--file-bytes"][0]))
    _checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if rules == "landlock":
        landlock([*named["--read"], f"/proc/{os.getpid()}"], named["--list"], named["--write"])
    if rules != "none":
        seccomp(unix_sockets=rules == "seccomp")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
