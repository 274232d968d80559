"""What the server itself costs: from a tool call to the recorded row for a task that does nothing, and its start-up.

    python benchmarks/orchestration.py [ROUNDS]

The task's scoring command is one bare Python process. The same process is timed alone, in turn with the tool calls, and its
median is taken off: what is left is ours. A process that only imports the SDK is timed beside the server's start for scale.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

import autoresearch_mcp
from autoresearch_mcp.create import create

TASK = """
name = "nothing"
goal = "Measure the server."
[files]
editable = "value.txt"
[metric]
name = "score"
direction = "maximize"
command = ["{python}", "-c", "print(open('value.txt').read())"]
"""
CALL_TARGET, START_TARGET = 0.300, 0.700  # seconds


def timed_process() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "print(open('value.txt').read())"], capture_output=True, check=True)
    return time.perf_counter() - started


def server(root: Path) -> StdioServerParameters:
    command = ["-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)]
    return StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))


async def calls(root: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from the call of run_experiment to its scored answer, and of the bare process."""
    whole: list[float] = []
    bare: list[float] = []
    async with Client(stdio_client(server(root))) as client:
        for number in range(rounds):
            if number:
                patch = f"@@\n-{number - 1}\n+{number}\n"
                assert not (await client.call_tool("apply_patch", {"patch": patch})).is_error
            started = time.perf_counter()
            result = await client.call_tool("run_experiment", {"description": f"value {number}"})
            whole.append(time.perf_counter() - started)
            assert result.structured_content is not None and result.structured_content["status"] == "scored", result
            assert not (await client.call_tool("keep", {})).is_error
            bare.append(timed_process())
    return whole, bare


async def start(root: Path) -> float:
    """Seconds from the spawn of the server to the answer to tools/list."""
    started = time.perf_counter()
    async with Client(stdio_client(server(root)), mode="legacy") as client:
        await client.list_tools()
        return time.perf_counter() - started


def imports() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mcp.server.mcpserver"], check=True)
    return time.perf_counter() - started


def evict() -> bool:
    """Drops the interpreter's and all packages' files from the page cache, as after a boot; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for place in (Path(sys.prefix), Path(sys.base_prefix) / "lib", Path(autoresearch_mcp.__file__).parent):
        for path in place.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".pyc", ".so"):
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
    return True


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTORESEARCH_CACHE"] = str(Path(folder) / "cache")
        os.chdir(folder)
        task = Path(folder) / "task"
        task.mkdir()
        (task / "autoresearch.toml").write_text(TASK)
        for place in (task, Path(folder)):
            (place / "value.txt").write_text("0\n")
        root = create(Path(folder) / "workspace", str(task)).root
        whole, bare = anyio.run(calls, root, rounds)
        starts, sdk = [], []
        for _ in range(rounds // 2):
            starts.append(anyio.run(start, root))
            sdk.append(imports())
        cold = [anyio.run(start, root) for _ in range(3) if evict()]
    ours = statistics.median(whole) - statistics.median(bare)
    opening = statistics.median(starts)
    process, sdk_import = statistics.median(bare), statistics.median(sdk)
    print(f"call to recorded row:  median {(ours + process) * 1000:.0f} ms, of it the process {process * 1000:.0f} ms")
    print(f"the server's share:    {ours * 1000:.0f} ms, {ours / CALL_TARGET:.2f} of the target of {CALL_TARGET * 1000:.0f} ms")
    target = f"{opening / START_TARGET:.2f} of the target of {START_TARGET * 1000:.0f} ms"
    print(f"start to tools/list:   median {opening * 1000:.0f} ms, {target}")
    if cold:
        print(f"the same, cold cache:  median {statistics.median(cold) * 1000:.0f} ms")
    print(f"importing the SDK:     median {sdk_import * 1000:.0f} ms, {sdk_import / opening:.2f} of that start")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
