"""The filter on system calls: its table against the kernel's headers, and its program as the kernel would run it."""

import re
import struct
import subprocess
from pathlib import Path

import pytest

from autoresearch_mcp.run import syscalls
from autoresearch_mcp.run.syscalls import ALLOW, KILL, MACHINES, MISSING, PRETEND, REFUSE, UNSUPPORTED

HEADERS = {
    "x86_64": ("asm/unistd_64.h", ""),
    "aarch64": ("asm-generic/unistd.h", "#define __BITS_PER_LONG 64\n#define __ARCH_WANT_RENAMEAT\n#define __ARCH_WANT_NEW_STAT\n"
                "#define __ARCH_WANT_SET_GET_RLIMIT\n#define __ARCH_WANT_SYS_CLONE3\n#define __ARCH_WANT_MEMFD_SECRET\n"),
}  # fmt: skip
TABLES = ("ALLOWED", "CONNECTING", "CONDITIONAL", "PRETENDED", "NOT_THERE", "ATTRIBUTES")
NUMBERS = {
    machine: {name: number for table in TABLES for name, number in syscalls.table(getattr(syscalls, table))[machine].items()}
    for machine in MACHINES
}
# What must never be in the list, with its number on x86-64: everything that reaches beyond the run, or outlives it.
FORBIDDEN = {
    "shmget": 29, "shmat": 30, "shmctl": 31, "shmdt": 67, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220,
    "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "mq_open": 240, "mq_unlink": 241, "mq_timedsend": 242,
    "mq_timedreceive": 243, "mq_notify": 244, "mq_getsetattr": 245, "add_key": 248, "request_key": 249, "keyctl": 250,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438, "setpriority": 141,
    "ioprio_set": 251, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setattr": 314, "chown": 92, "fchown": 93,
    "lchown": 94, "fchownat": 260, "inotify_init": 253, "inotify_init1": 294, "inotify_add_watch": 254, "fanotify_init": 300,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "io_uring_enter": 426, "io_uring_register": 427, "io_setup": 206,
    "io_submit": 209, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "unshare": 272, "setns": 308, "mount": 165,
    "umount2": 166, "pivot_root": 155, "chroot": 161, "fsopen": 430, "fsmount": 432, "move_mount": 429, "open_tree": 428,
    "mount_setattr": 442, "quotactl": 179, "quotactl_fd": 443, "swapon": 167, "reboot": 169, "init_module": 175,
    "finit_module": 313, "kexec_load": 246, "acct": 163, "settimeofday": 164, "clock_settime": 227, "adjtimex": 159,
    "sethostname": 170, "syslog": 103, "mincore": 27, "truncate": 76, "setuid": 105, "setgid": 106, "setresuid": 117,
    "setgroups": 116, "capset": 126, "seccomp": 317, "migrate_pages": 256, "vhangup": 153, "modify_ldt": 154, "iopl": 172,
    "ioperm": 173, "lookup_dcookie": 212, "rt_sigqueueinfo": 129, "cachestat": 451, "remap_file_pages": 216,
}  # fmt: skip


def verdict(
    machine: str, name: str | int, *arguments: int, arch: int | None = None, sockets: bool = False, own: bool = True
) -> int:
    """Interprets the program on one call, as the kernel would."""
    code = syscalls.program(machine, unix_sockets=sockets, own_files=own)
    steps = list(struct.iter_unpack("HBBI", code))
    number = name if isinstance(name, int) else NUMBERS[machine][name]
    data = struct.pack("IIQ6Q", number, MACHINES[machine] if arch is None else arch, 0, *arguments, *[0] * (6 - len(arguments)))
    at = register = 0
    while True:
        operation, if_true, if_false, value = steps[at]
        at += 1
        match operation:
            case syscalls.LOAD:
                (register,) = struct.unpack_from("I", data, value)
            case syscalls.AND:
                register &= value
            case syscalls.JUMP:
                at += value
            case syscalls.JUMP_EQUAL:
                at += if_true if register == value else if_false
            case syscalls.JUMP_AT_LEAST:
                at += if_true if register >= value else if_false
            case _:
                assert operation == syscalls.RETURN
                return value


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine: str):
    name, defines = HEADERS[machine]
    places = [Path("/usr/include/x86_64-linux-gnu") / name, Path("/usr/include") / name]
    header = next((place for place in places if place.exists()), None)
    if header is None:
        pytest.skip(f"{name} is not on this machine; to get it: apt install linux-libc-dev")
    try:
        source = f'{defines}#include "{header}"'
        result = subprocess.run(["gcc", "-E", "-dM", "-x", "c", "-"], input=source, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no gcc reads the header here")
    known = dict(re.findall(r"#define (__NR\w+) (\w+)", result.stdout))
    newer = {"fchmodat2"}
    for call, number in NUMBERS[machine].items():
        value = known.get(f"__NR_{call}", "")
        assert call in newer or int(known.get(value, value)) == number, call
    if machine == "x86_64":
        for call, number in FORBIDDEN.items():
            assert known.get(f"__NR_{call}", str(number)) == str(number), call


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("sockets", [False, True])
def test_every_number_gets_the_answer_of_the_list(machine: str, sockets: bool):
    known = syscalls.actions(machine, unix_sockets=sockets, own_files=True)
    for number in range(600):
        wanted = known.get(number, REFUSE if number <= syscalls.NEWEST else MISSING)
        if isinstance(wanted, int):
            assert verdict(machine, number, sockets=sockets) == wanted, number
    assert len(syscalls.program(machine, unix_sockets=sockets, own_files=True)) // 8 < 4096  # BPF_MAXINSNS


def test_what_reaches_beyond_a_run_is_in_no_list():
    assert not set(FORBIDDEN) & {*NUMBERS["x86_64"], *NUMBERS["aarch64"]}
    for number in FORBIDDEN.values():
        assert verdict("x86_64", number, sockets=True) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_and_abis_have_no_way_past(machine: str):
    assert verdict(machine, "read", arch=0x40000003) == KILL
    assert verdict(machine, 0x40000000 + 29) == REFUSE


CASES = [
    ("clone", (0x1200011,), ALLOW, "fork"),
    ("clone", (0x3D0F00,), ALLOW, "a thread"),
    *[("clone", (1 << bit | 17,), REFUSE, "a namespace") for bit in (17, 25, 26, 27, 28, 29, 30)],
    ("clone", (0x8011,), REFUSE, "a child of the supervisor's"),
    ("clone3", (), MISSING, "its flags cannot be seen, and libc falls back"),
    ("socket", (1, 1), REFUSE, "unix"),
    ("socket", (2, 1), REFUSE, "internet"),
    ("socket", (16, 3), REFUSE, "netlink"),
    ("socketpair", (1, 0x80001), ALLOW, "a stream, closed on exec"),
    ("socketpair", (1, 2), REFUSE, "datagrams, which could be sent to any address"),
    ("socketpair", (2, 1), REFUSE, "internet"),
    ("openat", (0, 0, 0o1102), ALLOW, "open for writing, made, cut off"),
    ("openat", (0, 0, 0o1000), REFUSE, "cut off what is only readable"),
    ("openat", (0, 0, 0o3), REFUSE, "for neither reading nor writing, which Landlock lets pass"),
    ("openat", (0, 0, 0o1003), REFUSE, "the same, and cut off"),
    ("openat", (0, 0, 0o102, 0o644), ALLOW, "make"),
    ("openat", (0, 0, 0o102, 0o4755), REFUSE, "make with set-user-id"),
    ("openat", (0, 0, 0, 0o4755), ALLOW, "a mode without making is no mode"),
    ("clone", (0x3D0B00,), REFUSE, "a thread with open files of its own"),
    ("ioctl", (0, 0x50009417), UNSUPPORTED, "BTRFS_IOC_SNAP_CREATE_V2, a file system in a file system"),
    ("prctl", (4, 0), REFUSE, "PR_SET_DUMPABLE"),
    ("mknodat", (0, 0, 0o10644), ALLOW, "a pipe"),
    ("mknodat", (0, 0, 0o20644), REFUSE, "a character device"),
    ("mknodat", (0, 0, 0o60644), REFUSE, "a block device"),
    ("fchmod", (3, 0o755), ALLOW, ""),
    ("fchmod", (3, 0o4755), REFUSE, "set-user-id"),
    ("utimensat", (), PRETEND, "times"),
    ("fsetxattr", (3,), UNSUPPORTED, "attributes"),
    ("ioctl", (0, 0x5413), ALLOW, "the size of the terminal"),
    ("ioctl", (0, 0x5412), REFUSE, "TIOCSTI"),
    ("ioctl", (0, 0xABCD00005412), REFUSE, "TIOCSTI with high bits that the kernel ignores"),
    ("ioctl", (0, 0x40086602), REFUSE, "FS_IOC_SETFLAGS"),
    ("ioctl", (0, 0xC020462A), ALLOW, "NVIDIA's driver"),
    ("ioctl", (0, 0x30000001), ALLOW, "NVIDIA's unified memory"),
    ("fcntl", (0, 1030), ALLOW, "F_DUPFD_CLOEXEC"),
    *[("fcntl", (0, command), REFUSE, "") for command in (8, 10, 15, 1024, 1026, 1035, 1036, 1038)],
    ("prctl", (15,), ALLOW, "a name"),
    *[("prctl", (option,), REFUSE, "") for option in (22, 24, 28, 35, 47, 53, 62)],
    ("prlimit64", (0, 7), ALLOW, "its own limit"),
    ("prlimit64", (1, 7), REFUSE, "another's"),
    ("prlimit64", (0, 15), REFUSE, "the limit that marks it"),
    ("prlimit64", (0, 4), REFUSE, "the limit that keeps its crashes its own"),
    ("setrlimit", (4,), REFUSE, "the same"),
    ("sched_setaffinity", (0,), ALLOW, "its own"),
    ("sched_setaffinity", (1,), REFUSE, "another's"),
    ("personality", (0xFFFFFFFF,), ALLOW, "asked"),
    ("personality", (0x40000,), REFUSE, "set"),
    ("kill", (5, 9), ALLOW, ""),
    ("kill", (0xFFFFFFFF, 9), REFUSE, "everybody"),
    ("kill", (0xFFFFFFFFFFFFFFFF, 9), REFUSE, "everybody, as 64 bits"),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "wanted", "what"), CASES)
def test_what_depends_on_the_arguments(machine: str, name: str, arguments: tuple[int, ...], wanted: int, what: str):
    assert verdict(machine, name, *arguments) == wanted, what


def test_where_nobody_outside_can_be_reached_local_sockets_are_allowed_and_no_others():
    assert verdict("x86_64", "socket", 1, sockets=True) == verdict("x86_64", "connect", sockets=True) == ALLOW
    assert verdict("x86_64", "socket", 2, sockets=True) == REFUSE
    assert verdict("x86_64", "connect") == verdict("x86_64", "bind") == REFUSE


def test_where_other_files_have_the_same_owner_no_mode_is_changed():
    assert verdict("x86_64", "chmod", 0, 0o777, own=False) == PRETEND
