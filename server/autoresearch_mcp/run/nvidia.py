"""What NVIDIA's management library (NVML) tells of one GPU: which it is, who computes on it, who holds its memory, and whether its
power is cut.

Ten functions of a C interface that the driver brings along and keeps stable by versioned names, called directly: the package
that wraps them would be one more dependency for everybody without a GPU. It starts no CUDA context. Where the library is not
there, or does not answer, there is no device, and nobody fails.

Reference: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import ctypes
import functools
import time
from collections.abc import Sequence

LIBRARY = "libnvidia-ml.so.1"
TEXT, SAMPLES = 96, 512  # characters of a name or UUID; processes that are asked after
UNKNOWN = 2**64 - 1  # bytes of a process whose driver does not count them
POWER_BRAKE = 0x80  # from outside the card: a power supply that fails, or a rack over its budget


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Sample(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("at", ctypes.c_ulonglong),
        ("multiprocessors", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


class _Process(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong), ("instance", ctypes.c_uint), ("compute", ctypes.c_uint))


class Device:
    """One GPU."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p):
        self._library, self._handle = library, handle

    @property
    def name(self) -> str:
        return self._text("nvmlDeviceGetName") or "an unknown GPU"

    @property
    def uuid(self) -> str:
        return self._text("nvmlDeviceGetUUID")

    @property
    def number(self) -> str:
        """Of its device file, /dev/nvidiaNUMBER; empty where the driver does not tell."""
        minor = ctypes.c_uint()
        return str(minor.value) if self._call("nvmlDeviceGetMinorNumber", ctypes.byref(minor)) else ""

    @property
    def memory(self) -> int:
        """Bytes, all of it."""
        return self._memory().total

    @property
    def used(self) -> int:
        """Bytes of it that are in use, by anybody."""
        return self._memory().used

    @property
    def power_is_cut(self) -> bool:
        """Whether the clock is held down by a signal from outside the card. Heat and the card's own power limit are not asked
        after: what runs on it brings them about.
        """
        reasons = ctypes.c_ulonglong()
        asked = self._call("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.byref(reasons))
        return asked and bool(reasons.value & POWER_BRAKE)

    def used_by(self, seconds: float) -> dict[int, float]:
        """By process number, as the host of containers counts them: its average share of the GPU over the last `seconds`."""
        samples, count = (_Sample * SAMPLES)(), ctypes.c_uint(SAMPLES)
        since = ctypes.c_ulonglong(int((time.time() - seconds) * 1e6))
        if not self._call("nvmlDeviceGetProcessUtilization", samples, ctypes.byref(count), since):
            return {}
        return {sample.pid: sample.multiprocessors / 100 for sample in samples[: count.value]}

    def held(self) -> dict[int, int]:
        """By process number, as the host of containers counts them: bytes of memory. Those that the driver does not tell
        of are not there.
        """
        processes, count = (_Process * SAMPLES)(), ctypes.c_uint(SAMPLES)
        if not self._call("nvmlDeviceGetComputeRunningProcesses_v3", ctypes.byref(count), processes):
            return {}
        return {process.pid: process.memory for process in processes[: count.value] if process.memory != UNKNOWN}

    def _memory(self) -> _Memory:
        found = _Memory()  # all 0
        self._call("nvmlDeviceGetMemoryInfo", ctypes.byref(found))
        return found

    def _text(self, function: str) -> str:
        buffer = ctypes.create_string_buffer(TEXT)
        return buffer.value.decode(errors="replace") if self._call(function, buffer, ctypes.c_uint(TEXT)) else ""

    def _call(self, function: str, *arguments: object) -> bool:
        try:
            return getattr(self._library, function)(self._handle, *arguments) == 0
        except AttributeError:  # a driver that is older, or newer, than the function
            return False


@functools.cache
def device(index: str) -> Device | None:
    """The GPU of a slot, by the number of its device file or its UUID; None where there is none that answers. The library stays
    open until this process ends: opening it wakes the driver.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
        if library.nvmlInit_v2() != 0:
            return None
        if index.isdigit():
            found = [gpu for place, gpu in enumerate(_all(library)) if (gpu.number or str(place)) == index]
            return found[0] if found else None
        handle = ctypes.c_void_p()
        told = library.nvmlDeviceGetHandleByUUID(index.encode(), ctypes.byref(handle))
    except (OSError, AttributeError):
        return None
    return Device(library, handle) if told == 0 else None


def _all(library: ctypes.CDLL) -> list[Device]:
    """Those that this process may open, which in a container are not all of the machine: so their places say nothing. Raises
    AttributeError.
    """
    count, found = ctypes.c_uint(), list[Device]()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for place in range(count.value):
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(place), ctypes.byref(handle)) == 0:
            found.append(Device(library, handle))
    return found


class Held:
    """What a run holds of its GPUs' memory, from when it has the slot: by its processes, where the driver numbers them as they are
    numbered here; in a container it does not, and what has come to be in use since counts, the evaluator's too.
    """

    def __init__(self, gpus: Sequence[Device]):
        self._before = [(gpu, gpu.used) for gpu in gpus]

    def by(self, pids: Sequence[int]) -> int:
        """Bytes, of all of them together."""
        found = 0
        for gpu, before in self._before:
            held = gpu.held()
            ours = [held[pid] for pid in pids if pid in held]
            found += sum(ours) if ours else max(0, gpu.used - before)
        return found
