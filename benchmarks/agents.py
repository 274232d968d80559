"""A night of many agents in one workspace: each a scripted MCP client over HTTP with a session of its own, all at one server, with
fewer slots than agents.

    python benchmarks/agents.py [--agents 16] [--slots 4] [--experiments 6] [--seconds 3] [--executor local|ray]

Every agent tries as many changes, keeps what is better and discards what is not, as a real one does. At the end the ledger is
verified from its first row, and each session's record is compared with what its agent was told. Shares: how far the others were
when the first agent was done.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from scale_out import LINE, cluster_of, made

from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.run import disturbance, slots
from autoresearch_mcp.workspace import Workspace


@contextmanager
def served(workspace: Workspace):
    """The URL of a server for it."""
    command = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", "serve", "--http", "--port", "0", "-w", str(workspace.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


class Agent:
    def __init__(self, number: int, seconds: float):
        self.name, self.seconds = f"agent-{number:02}", seconds
        self.told: dict[int, str] = {}
        """What was decided of each of its experiments."""

    async def work(self, url: str, token: str, experiments: int) -> None:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=600) as http,
            Client(streamable_http_client(f"{url}/{self.name}", http_client=http)) as client,
        ):

            async def call(name: str, **arguments: Any) -> dict[str, Any]:
                answer = await client.call_tool(name, arguments)
                if answer.is_error:
                    sys.exit(f"{self.name}: {name}: {answer.content}")
                return answer.structured_content or {}

            line = LINE
            for number in range(experiments):
                if number:
                    changed = (
                        f"sleep, number = {self.seconds}, {number if number % 2 == 0 else -number}"  # every other one is better
                    )
                    await call("apply_patch", patch=f"<<<<<<< SEARCH\n{line}\n=======\n{changed}\n>>>>>>> REPLACE\n")
                answer = await call("run_experiment", description=f"{self.name} tries {number}", wait_seconds=60)
                while answer["status"] == "running":
                    answer = await call("get_score", wait_seconds=60)
                verdict = "keep" if "keep" in answer["allowed"] else "discard"
                await call(verdict)
                self.told[answer["experiment"]] = verdict
                line = changed if verdict == "keep" and number else line


async def night(agents: list[Agent], url: str, token: str, experiments: int) -> list[int]:
    """How far each agent was when the first was done."""
    far: list[int] = []

    async def one(agent: Agent) -> None:
        await agent.work(url, token, experiments)
        if not far:
            far.extend(len(other.told) for other in agents)

    async with anyio.create_task_group() as tasks:
        for agent in agents:
            tasks.start_soon(one, agent)
    return far


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--experiments", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    arguments = parser.parse_args()
    os.environ |= {slots.SETTING: f"seat={arguments.slots}", disturbance.SETTING: "100"}
    agents = [Agent(number, arguments.seconds) for number in range(1, arguments.agents + 1)]
    with ExitStack() as stack:
        workspace = made(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        if arguments.executor == "ray":
            stack.enter_context(cluster_of(arguments.slots))
        url = stack.enter_context(served(workspace))
        started = time.perf_counter()
        far = anyio.run(night, agents, url, workspace.bearer_token(), arguments.experiments)
        took = time.perf_counter() - started
        ledger = open_ledger(workspace)
        rows = ledger.verify()
        for agent in agents:
            session = Session.open(workspace, ledger, agent.name)
            recorded = {one.number: "keep" if one.kept else "discard" for one in session.state.experiments}
            if recorded != agent.told or any(run.ended is None for one in session.state.experiments for run in one.runs):
                sys.exit(f"{agent.name} was told {agent.told}, and the ledger has {recorded}")
    runs = arguments.agents * arguments.experiments
    ideal = arguments.agents * (arguments.experiments - 1) * arguments.seconds / arguments.slots
    where = f"{arguments.slots} slots ({arguments.executor})"
    print(f"{arguments.agents} agents, {where}, {runs} experiments in {took:.0f} s; ideal {ideal:.0f} s")
    print(f"{rows} rows of the ledger verified; every agent's record is as it was told")
    print(f"when the first agent was done, the others had {min(far)} to {max(far)} of {arguments.experiments}")


if __name__ == "__main__":
    main()
