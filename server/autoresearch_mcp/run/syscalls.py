"""Which system calls a run may make, as a filter for the kernel: a list of what is allowed, and everything else is refused.

The list follows the default profile of the container world, under which most programs are known to run
(https://github.com/moby/profiles/blob/main/seccomp/default.json), and leaves out what it grants beyond a process's own files,
memory and children: IPC by number or name, keyrings, priorities, limits of others, watches on files, asynchronous I/O, ids,
tracing, namespaces, handles. What is left takes conditions on its arguments where one call does many things.

Refused is EPERM; a call that libraries try first and do without is ENOSYS, as on a kernel that lacks it. Extended attributes are
answered as by a file system without them. Changes of times and advice on the page cache are answered by success and not made: they
would be a way to leave word for the next run, and honest programs (cp, tar, make) set them only to be neat.

Why this and no library: sandlock 0.9 asks for Landlock's ABI 6, which is Linux 6.12, and many clouds run 5.15; pyseccomp asks for a
libseccomp, which a bare machine lacks. The price is a table of numbers, which a test compares with the kernel's headers.
"""

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""By platform.machine(), the kernel's AUDIT_ARCH. Elsewhere there is no filter, and no level that needs one."""

ALLOW, KILL, ASK = 0x7FFF0000, 0x80000000, 0x7FC00000  # ASK: SECCOMP_RET_USER_NOTIF, see refusals.py
REFUSE, MISSING, UNSUPPORTED, PRETEND = (0x00050000 | code for code in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, 0))

# Names with their numbers on x86-64 and AArch64, "-" where there is none. Facts of asm/unistd_64.h and asm-generic/unistd.h.
ALLOWED = """
    # Memory; mbind and its kind are asked for by libnuma, mlock and membarrier by CUDA and its libraries.
    brk 12 214, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, msync 26 227, mlock 149 228,
    mlock2 325 284, mlockall 151 230, munlock 150 229, munlockall 152 231, membarrier 324 283, memfd_create 319 279,
    get_mempolicy 239 236, set_mempolicy 238 237, mbind 237 235, pkey_alloc 330 289, pkey_free 331 290,
    pkey_mprotect 329 288
    # Open files.
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
    lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, fsync 74 82, fdatasync 75 83,
    sync_file_range 277 84, fallocate 285 47, ftruncate 77 46, flock 73 32, copy_file_range 326 285, sendfile 40 71,
    splice 275 76, tee 276 77, vmsplice 278 75, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -,
    pselect6 270 72, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
    epoll_pwait2 441 441, eventfd 284 -, eventfd2 290 19, signalfd 282 -, signalfd4 289 74, timerfd_create 283 85,
    timerfd_settime 286 86, timerfd_gettime 287 87
    # Paths, which Landlock or the mount namespace rule over; stat and readlink are ruled over by nothing but ordinary permissions.
    stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44,
    access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getcwd 79 17, chdir 80 49,
    fchdir 81 50, getdents 78 -, getdents64 217 61, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
    rename 82 -, renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36,
    umask 95 166
    # Processes and threads of its own.
    fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95,
    set_tid_address 218 96, set_robust_list 273 99, rseq 334 293, futex 202 98, futex_waitv 449 449, arch_prctl 158 -,
    pidfd_open 434 434, getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155, getpgrp 111 -, setpgid 109 154,
    getsid 124 156, setsid 112 157, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148,
    getresgid 120 150, getgroups 115 158, capget 125 90, getrusage 98 165, times 100 153, sched_yield 24 124,
    restart_syscall 219 128
    # What can be asked of the scheduler; NCCL and OpenMP place their threads by what they find.
    sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120, sched_getattr 315 275,
    sched_get_priority_max 146 125, sched_get_priority_min 147 126, sched_rr_get_interval 148 127, getpriority 140 141,
    ioprio_get 252 31, getcpu 309 168, getrlimit 97 163
    # Signals; who may be hit is decided by the user id, the process namespace or Landlock's scope (Linux 6.12).
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133,
    rt_sigtimedwait 128 137, sigaltstack 131 132, tgkill 234 131, tkill 200 130, pidfd_send_signal 424 424, pause 34 -
    # Time, and facts about the machine.
    clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169,
    time 201 -, alarm 37 -, getitimer 36 102, setitimer 38 103, timer_create 222 107, timer_settime 223 110,
    timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111, uname 63 160, sysinfo 99 179, getrandom 318 278
    # Sockets that it was given, or that are a pair.
    sendto 44 206, sendmsg 46 211, sendmmsg 307 269, recvfrom 45 207, recvmsg 47 212, recvmmsg 299 243, getsockname 51 204,
    getpeername 52 205, getsockopt 55 209, setsockopt 54 208, shutdown 48 210
"""
CONNECTING = """
    accept 43 202, accept4 288 242, bind 49 200, connect 42 203, listen 50 201
"""
CONDITIONAL = """
    open 2 -, openat 257 56, creat 85 -, clone 56 220, socket 41 198, socketpair 53 199, ioctl 16 29, fcntl 72 25, prctl 157 167,
    prlimit64 302 261, setrlimit 160 164, sched_setaffinity 203 122, move_pages 279 239, personality 135 92, kill 62 129,
    mknod 133 -, mknodat 259 33, chmod 90 -, fchmod 91 52, fchmodat 268 53
"""
PRETENDED = """
    utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -, fadvise64 221 223, readahead 187 213, sync 162 81,
    syncfs 306 267
"""
NOT_THERE = """
    clone3 435 435, openat2 437 437, preadv2 327 286, pwritev2 328 287, io_uring_setup 425 425, fchmodat2 452 452,
    memfd_secret 447 447, process_madvise 440 440
"""
ATTRIBUTES = """
    setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11,
    llistxattr 195 12, flistxattr 196 13, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
"""
WATCHED = ("open", "openat", "execve", "execveat")
NEWEST = 462  # the last call when the list was made: what comes later is missing, not refused, so that libraries fall back


@dataclass(frozen=True)
class When:
    """An action that depends on the low half of an argument: `then` where, masked, it is one of the values, else `otherwise`."""

    argument: int
    values: Sequence[int]
    then: "Action" = ALLOW
    otherwise: "Action" = REFUSE
    mask: int = 0xFFFFFFFF


Action = int | When

LOOPBACK = (2, 10, 16)  # AF_INET, AF_INET6, and AF_NETLINK, by which programs ask what interfaces there are
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET, SOCK_TYPES = 1, 1, 5, 0xF
NAMESPACES, CLONE_PARENT = 0x7E020000, 0x8000  # CLONE_PARENT would make a child of the supervisor's, not of the run's
CLONE_FILES, CLONE_THREAD = 0x400, 0x10000  # a thread with open files of its own would hide them: /proc shows the first thread's
ACCESS, TRUNCATES = 0o3, 0o1000  # O_ACCMODE, O_TRUNC
MAKES = (0o100, 0o20000000, 0o20000100)  # O_CREAT, what O_TMPFILE adds, both
NEITHER = 0o3  # access for neither reading nor writing, for which Landlock asks for no right; only ioctl needs it
DEVICE = 0x2000  # the bit of a mode that character and block devices have, and nothing else
SPECIAL_MODES = 0o7000  # set-user-id, set-group-id, sticky
RTTIME = 15  # the limit that marks the processes of a run, see processes.py
CORE = 4  # the limit that keeps the kernel from starting a program for every crash, see confine.py
# Opening files again, locks, and sealing of memory; not leases, watches, owners of signals or hints kept with the file.
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032, 1033, 1034)
# Names, death signals, whether it may be looked into (asked, not changed: its files would be hidden), timer slack,
# huge pages, being a subreaper; of AArch64 vector lengths and tagged addresses.
PRCTL = (1, 2, 3, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 41, 42, 50, 51, 55, 56, 0x53564D41, 0x59616D61)
# Terminals: typing for another (TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD); signals to others (FIOSETOWN, SIOCSPGRP).
IOCTL = (0x5412, 0x541C, 0x541D, 0x5423, 0x8901, 0x8902)
FILE_ATTRIBUTES = (ord("f") << 8, ord("X") << 8)  # kinds of ioctl that change a file's flags, version, project or encryption
BTRFS = (0x9400,)  # the kind of those that make subvolumes past every rule on paths; and clones, which cp does without
QUERY = 0xFFFFFFFF  # personality() that only asks; as pid of kill(), everybody
OTHERS = When(0, (0,))  # only of the caller itself, which is written 0


def _conditions(unix_sockets: bool, own_files: bool, pinned: bool, internet: bool) -> dict[str, Action]:
    device = When(1, (DEVICE,), REFUSE, ALLOW, DEVICE)
    stream = When(1, (SOCK_STREAM, SOCK_SEQPACKET), mask=SOCK_TYPES)  # one of datagrams could be sent on to any address
    mode = ALLOW if own_files else PRETEND
    return {
        "open": _opening(1),
        "openat": _opening(2),
        "creat": When(1, (0,), mask=SPECIAL_MODES),
        "mknod": device,
        "mknodat": When(2, device.values, REFUSE, ALLOW, DEVICE),
        "chmod": When(1, (0,), mode, REFUSE, SPECIAL_MODES),
        "fchmod": When(1, (0,), mode, REFUSE, SPECIAL_MODES),
        "fchmodat": When(2, (0,), mode, REFUSE, SPECIAL_MODES),
        "clone": When(0, (0,), When(0, (CLONE_THREAD,), REFUSE, ALLOW, CLONE_THREAD | CLONE_FILES), mask=NAMESPACES | CLONE_PARENT),
        "socket": When(0, (AF_UNIX, *(LOOPBACK if internet else ()))) if unix_sockets else REFUSE,
        "socketpair": When(0, (AF_UNIX,), ALLOW if unix_sockets else stream),
        "ioctl": When(1, IOCTL, REFUSE, When(1, FILE_ATTRIBUTES, REFUSE, When(1, BTRFS, UNSUPPORTED, ALLOW, 0xFF00), 0xFF00)),
        "fcntl": When(1, FCNTL),
        "prctl": When(0, PRCTL),
        "prlimit64": When(0, (0,), When(1, (RTTIME, CORE), REFUSE, ALLOW)),
        "setrlimit": When(0, (RTTIME, CORE), REFUSE, ALLOW),
        "sched_setaffinity": PRETEND if pinned else OTHERS,
        "move_pages": OTHERS,
        "personality": When(0, (0, QUERY)),
        "kill": When(0, (QUERY,), REFUSE, ALLOW),
    }


def _opening(flags: int) -> Action:
    """By the arguments `flags` and, behind it, the mode: not for neither reading nor writing, not to cut off what is only readable
    (Landlock before Linux 6.2 does not look), and no new file that runs as its owner.
    """
    making = When(flags, MAKES, When(flags + 1, (0,), mask=SPECIAL_MODES), ALLOW, MAKES[-1])
    return When(flags, (NEITHER,), REFUSE, When(flags, (TRUNCATES,), REFUSE, making, ACCESS | TRUNCATES), ACCESS)


def table(text: str) -> dict[str, dict[str, int]]:
    """Of each machine, numbers by name."""
    found: dict[str, dict[str, int]] = {machine: {} for machine in MACHINES}
    lines = (line for line in text.splitlines() if line and not line.strip().startswith("#"))
    for entry in ",".join(line.rstrip(",") for line in lines).split(","):
        name, *numbers = entry.split()
        for machine, number in zip(MACHINES, numbers, strict=True):
            if number != "-":
                found[machine][name] = int(number)
    return found


def actions(
    machine: str, *, unix_sockets: bool, own_files: bool, pinned: bool = False, internet: bool = False
) -> dict[int, Action]:
    """What happens to each call that is not simply refused, by its number."""
    conditions = _conditions(unix_sockets, own_files, pinned, internet)
    answers = [(ALLOWED, ALLOW), (PRETENDED, PRETEND), (NOT_THERE, MISSING), (ATTRIBUTES, UNSUPPORTED)]
    answers += [(CONNECTING, ALLOW)] if unix_sockets else []
    found: dict[int, Action] = {number: action for text, action in answers for number in table(text)[machine].values()}
    return found | {number: conditions[name] for name, number in table(CONDITIONAL)[machine].items()}


def judge(action: Action, arguments: Sequence[int]) -> int:
    """What the filter does with a call of these arguments."""
    while isinstance(action, When):
        action = action.then if arguments[action.argument] & action.mask in action.values else action.otherwise
    return action


def asking(known: dict[int, Action], machine: str) -> dict[int, Action]:
    """The same, but whatever could be refused, or opens or starts a file, is asked about."""
    watched = {number for name, number in (table(ALLOWED)[machine] | table(CONDITIONAL)[machine]).items() if name in WATCHED}
    every = {number: known.get(number, REFUSE) for number in range(NEWEST + 1)}
    return {number: ASK if number in watched or _may_refuse(action) else action for number, action in every.items()}


def _may_refuse(action: Action) -> bool:
    return _may_refuse(action.then) or _may_refuse(action.otherwise) if isinstance(action, When) else action == REFUSE


# --- the filter -------------------------------------------------------------------------------------------------------

LOAD, AND, JUMP, RETURN, JUMP_EQUAL, JUMP_AT_LEAST = 0x20, 0x54, 0x05, 0x06, 0x15, 0x35  # classic BPF
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # where the numbers of another ABI begin


def program(
    machine: str, *, unix_sockets: bool, own_files: bool, pinned: bool = False, internet: bool = False, asks: bool = False
) -> bytes:
    """The filter as an array of struct sock_filter.

    unix_sockets: whether sockets may be made and connected, as where nobody outside can be reached by them. Landlock does not rule
    over connecting to a path, so there they are refused; a pair stays. own_files: whether all files that the caller could change
    the mode of are its run's own; where they are not, changing a mode is answered by success and not made. pinned: whether the
    caller stays on the cores that it has; then choosing among them is answered likewise, since a library that places its threads
    shall not fail over it. internet: whether sockets of the internet's kind may be made, as where there is no network but a
    loopback device of the caller's own. asks: whether a listener answers what could be refused. KeyError for a machine that is
    none of MACHINES.
    """
    known = actions(machine, unix_sockets=unix_sockets, own_files=own_files, pinned=pinned, internet=internet)
    known = asking(known, machine) if asks else known
    ranges: list[tuple[int, Action]] = []
    for number in range(NEWEST + 1):
        action = known.get(number, REFUSE)
        if not ranges or ranges[-1][1] != action:
            ranges.append((number, action))
    ranges += [(NEWEST + 1, MISSING), (X32, REFUSE)]
    start = [_step(LOAD, ARCH), _step(JUMP_EQUAL, MACHINES[machine], 1, 0), _step(RETURN, KILL), _step(LOAD, NUMBER)]
    return b"".join(start + _search(ranges))


def _search(ranges: list[tuple[int, Action]]) -> list[bytes]:
    """Finds the range that the loaded number is in, by halving."""
    if len(ranges) == 1:
        return _answer(ranges[0][1])
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [_step(JUMP_AT_LEAST, ranges[middle][0], 0, 1), _step(JUMP, len(below)), *below, *above]


def _answer(action: Action) -> list[bytes]:
    if isinstance(action, int):
        return [_step(RETURN, action)]
    then, otherwise = _answer(action.then), _answer(action.otherwise)
    tests = [_step(LOAD, ARGUMENTS + 8 * action.argument), _step(AND, action.mask)]
    for place, value in enumerate(action.values, 1):
        tests.append(_step(JUMP_EQUAL, value, len(action.values) - place + len(otherwise), 0))
    return [*tests, *otherwise, *then]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
