"""Agents as a night meets them, each a real MCP client over stdio: agents.py WHAT."""

import os
import signal
import subprocess
import sys

import anyio

SERVE = ["-m", "autoresearch_mcp.cli", "serve", "--workspace", os.getcwd()]


def connected():
    from mcp.client import Client  # here, because it takes a second, and few agents get that far
    from mcp.client.stdio import StdioServerParameters, stdio_client

    return Client(stdio_client(StdioServerParameters(command=sys.executable, args=SERVE, env=dict(os.environ))))


def leave(name: str, text: object) -> None:
    """Something for the test, in a file of the workspace."""
    with open(name, "a") as file:
        file.write(str(text))


def leave_a_daemon() -> None:
    daemon = (
        "import os, sys, time; os.fork() and sys.exit(); os.setsid(); open('daemon', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", daemon], start_new_session=True, check=True)


async def works(prompt: str) -> None:
    """Does one step that is allowed, and asks."""
    leave("prompts", prompt.rpartition("# Tonight")[2])
    async with connected() as client:
        status = (await client.call_tool("status", {})).structured_content
        assert status is not None
        arguments = {"run_experiment": {"description": "as it is"}, "apply_patch": {"patch": "@@\n+# a line\n"}}
        await client.call_tool(status["allowed"][0], arguments.get(status["allowed"][0], {}))
    print("That went well. Shall I go on?")


async def hangs(_: str) -> None:
    """Starts a run and a daemon, and does not end when it is told to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    async with connected() as client:
        await client.call_tool("run_experiment", {"description": "a run", "wait_seconds": 0})
        leave_a_daemon()
        leave("agent", os.getpid())
        await anyio.sleep_forever()


async def quits(_: str) -> None:
    print("\x1b[31mInvalid API key\x1b[0m · Fix external API key")
    raise SystemExit(1)


async def is_limited(_: str) -> None:
    print("API Error: 529 Overloaded. This is a server-side issue.")
    raise SystemExit(1)


async def floods(_: str) -> None:
    for _ in range(500):
        sys.stdout.write("all work and no play\n" * 5000)
    raise SystemExit(3)


async def sleeps(_: str) -> None:
    leave("agent", os.getpid())
    await anyio.sleep(600)


if __name__ == "__main__":
    anyio.run(globals()[sys.argv[1]], sys.stdin.read())
