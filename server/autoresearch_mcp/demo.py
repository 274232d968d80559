"""The demo: a scripted MCP client drives a real server over stdio through a baseline, a better patch, a worse one and a crash.

The client is a script and says so; everything it drives is real: the server, git, the runs, the scores. The runs are timed, so a
busy machine gives one less training than the next. The ideas are chosen for that: the better one still wins with two thirds of
the baseline's time, the worse one cannot win with any. The script does what the server suggests, and a day on which the
better idea loses all the same ends with a line that says so, not with an error.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from rich.console import Console

from autoresearch_mcp.create import create
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.views import terminal
from autoresearch_mcp.views.plot import draw
from autoresearch_mcp.workspace import Workspace


@dataclass(frozen=True)
class Idea:
    """What the script tries, as a patch in one of the three forms."""

    description: str
    hypothesis: str
    patch: str
    expected: str
    """The verdict that the server will suggest."""
    learned: str
    """The lesson, true where the verdict is the expected one."""


IDEAS = (
    # Measured on two cores: 1.99 bpb in 8 s, 2.10 in 5.3 s and 2.23 in 4 s, against the baseline's 2.22 and 2.25 in 8 s.
    Idea(
        "one layer, small batches, larger steps",
        "so short a run is limited by the number of steps: with one layer and an eighth of the batch there are twelve for one",
        """\
--- a/train.py
+++ b/train.py
@@ -35 +35 @@
-DEPTH = by_preset(2, 1, 8, cpu_8=2)  # layers
+DEPTH = by_preset(1, 1, 8, cpu_8=2)  # layers
@@ -48,3 +48,3 @@
-DEVICE_BATCH_SIZE = by_preset(128, 16, 2 ** int(math.log2(0.8 * MEMORY_GB * 2048 / MAX_SEQ_LEN)))  # sequences in one forward pass
-TOTAL_BATCH_SIZE = by_preset(2**13, 2**12, 2 ** min(19, 13 + int(math.log2(MEMORY_GB))))  # tokens in one optimiser step
-MATRIX_LR = 0.02  # Muon: the matrices inside the blocks
+DEVICE_BATCH_SIZE = by_preset(16, 16, 2 ** int(math.log2(0.8 * MEMORY_GB * 2048 / MAX_SEQ_LEN)))  # sequences in one forward pass
+TOTAL_BATCH_SIZE = by_preset(2**10, 2**12, 2 ** min(19, 13 + int(math.log2(MEMORY_GB))))  # tokens in one optimiser step
+MATRIX_LR = 0.05  # Muon: the matrices inside the blocks
""",
        "keep",
        "steps count more than layers and batch size here",
    ),
    Idea(
        "logits capped at a twentieth",
        "a tight cap might regularise",
        """\
<<<<<<< SEARCH
LOGIT_CAP = by_preset(15.0, 0.0, 15.0)  # logits are squashed smoothly into (-cap, cap); 0: they are not
=======
LOGIT_CAP = by_preset(0.05, 0.0, 15.0)  # logits are squashed smoothly into (-cap, cap); 0: they are not
>>>>>>> REPLACE
""",
        "discard",
        "far too tight: such a model cannot be sure of anything",
    ),
    Idea(
        "gated MLP",
        "gating often helps",
        """\
*** Begin Patch
*** Update File: train.py
@@ class MLP(nn.Module):
     def forward(self, x):
-        return self.proj(F.relu(self.fc(x)).square())  # ReLU squared: So et al. 2021, arXiv:2109.08668
+        return self.proj(F.relu(self.fc(x)).square() * self.gate(x))
*** End Patch
""",
        "discard",
        "the gate was never defined; this idea needs a parameter of its own",
    ),
)


def run_demo(directory: Path) -> None:
    """Runs the demo in a new workspace at `directory`. Raises AutoresearchError where the server refuses a call of the script."""
    console = terminal.console()
    console.print("[bold]A scripted client (no AI here) drives a real server over stdio.[/]")
    workspace = create(directory, "default", "tiny")
    Session.start(workspace, open_ledger(workspace)).data.prepare(workspace.root)
    started = time.monotonic()
    anyio.run(_drive, directory, console)

    session = Session.open(Workspace(directory), open_ledger(workspace))
    console.print()
    console.print(terminal.experiments_table(session))
    draw(session.state, directory / "progress.png")
    if not session.experiment(2).kept:
        console.print(
            "\nThe better idea lost: this machine gave it far less time than the baseline. The loop refused it, as it should."
        )
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. To look further:")
    console.print(f"  git -C {directory} log --oneline {session.state.started.branch}   # what was kept")
    console.print(f"  cat {session.results.path}")
    console.print(f"  {directory / 'progress.png'}   # the picture")
    console.print(f"  autoresearch-mcp dashboard --workspace {directory}   # all of it, in a browser")


async def _drive(directory: Path, console: Console) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "autoresearch_mcp.cli", "serve", "--workspace", str(directory)],
        env=dict(os.environ),
    )
    async with Client(stdio_client(server)) as client:
        tools = await client.list_tools()
        console.print(f"tools: {', '.join(tool.name for tool in tools.tools)}\n")

        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            """One tool call, shown with the first lines of its answer; errors of the tool raise."""
            spoken = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key in ("description", "learned"))
            console.print(f"[cyan]> {name}({spoken})[/]")

            async def show(progress: float, total: float | None, message: str | None) -> None:
                console.print(f"    [dim]{message}[/]", markup=True)

            answer = await client.call_tool(name, arguments, progress_callback=show)
            text = "\n".join(getattr(block, "text", "") for block in answer.content)
            if answer.is_error:
                raise AutoresearchError(f"The demo's call of {name} was refused: {text}")
            for line in text.splitlines()[:12]:
                console.print(f"    {line[:160]}", markup=False)
            return answer.structured_content or {}

        async def run_to_end(**arguments: Any) -> dict[str, Any]:
            result = await call("run_experiment", **arguments, wait_seconds=30)
            while result["status"] == "running":
                result = await call("get_val_bpb", wait_seconds=30)
            return result

        await call("status")
        await run_to_end(description="baseline")
        await call("keep", learned="where we start")
        for idea in IDEAS:
            await call("apply_patch", patch=idea.patch)
            result = await run_to_end(description=idea.description, hypothesis=idea.hypothesis)
            verdict = "keep" if result.get("suggestion") == "keep" else "discard"  # a crash has no score and no suggestion
            await call(verdict, learned=idea.learned if verdict == idea.expected else "not on this machine, not today")
        await call("history")
