"""A driver of NVIDIA's with two GPUs, for a machine without one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch_mcp.run import nvidia

COMPILE = ("cc", "-shared", "-fPIC", "-x", "c", "-", "-o")
LIBRARY = """
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned pid; unsigned long long at; unsigned sm, memory, encoder, decoder; } sample;
typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } process;
static unsigned long long used_now(void) { const char *set = getenv("USED"); return set ? strtoull(set, 0, 10) : 0; }
static unsigned first(void) { const char *set = getenv("FIRST_GPU"); return set ? atoi(set) : 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetMinorNumber(void *device, unsigned *number) { *number = first() + (unsigned)((uintptr_t)device - 0xA00000000); return getenv("NUMBERLESS") != 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(uintptr_t)(0xA00000000 + index); return index > 1; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)(uintptr_t)0xA00000001; return strcmp(uuid, "GPU-1") != 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { strcpy(name, device == (void *)0xA00000000 ? "NVIDIA H200" : "NVIDIA A10"); return 0; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) { strcpy(uuid, device == (void *)0xA00000000 ? "GPU-0" : "GPU-1"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory *found) { found->total = 150754820096ull; found->used = used_now(); return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) { *reasons = device == (void *)0xA00000000 ? 0x64 : 0x84; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *found) {
    if (*count < 3) return 7;
    found[0] = (process){4711, 3ull << 30, 0, 0}; found[1] = (process){4712, 1ull << 30, 0, 0}; found[2] = (process){4713, -1, 0, 0}; *count = 3;
    return 0;
}
int nvmlDeviceGetProcessUtilization(void *device, sample *samples, unsigned *count, unsigned long long since) {
    if (*count < 2) return 7;
    samples[0] = (sample){4711, since, 40, 1, 0, 0}; samples[1] = (sample){4712, since, 10, 1, 0, 0}; *count = 2;
    return 0;
}
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A driver with two GPUs."""
    library = tmp_path / "libnvidia-ml.so.1"
    try:
        subprocess.run([*COMPILE, library], input=LIBRARY, text=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler that works; to get one: apt install gcc")
    monkeypatch.setattr(nvidia, "LIBRARY", str(library))
    nvidia.device.cache_clear()
    yield
    nvidia.device.cache_clear()
