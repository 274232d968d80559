"""What a long night costs: a ledger of many experiments, opened and used over stdio by a real client.

    python benchmarks/scale.py [EVENTS ...]         # 1000 10000 100000 if left out

Every experiment is a real commit with its five events; the baseline alone was kept, all refs of experiments are missing, and the
last experiment awaits its verdict. Times are seconds from the start of the server to the answer of tools/list, then milliseconds of
the slowest of a few calls, the first one included; memory is the server's after all of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import psutil
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from autoresearch_mcp.create import create
from autoresearch_mcp.files import sha256
from autoresearch_mcp.loop.runs import SEED
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.record.events import Event, ExperimentCommitted, RunEnded, RunStarted, Settled, VerdictGiven
from autoresearch_mcp.task import TASK_FILE, bundled_tasks

SIZES = (1_000, 10_000, 100_000)
EVENTS = 5  # of an experiment
REPEATS = 5
THOUGHT = 2.0  # seconds between tools/list and the first call: no model answers faster
CALLS = ("status", "history", "history search", "read_notes", "apply_patch", "keep")


def build(folder: Path, experiments: int) -> Path:
    """A workspace of the notes task with so many experiments, judged by single runs, as their rows have them."""
    task = folder / f"task-{experiments}"
    shutil.copytree(bundled_tasks()["notes"], task)
    toml = (task / TASK_FILE).read_text()
    (task / TASK_FILE).write_text(toml.replace("[metric]\n", '[metric]\nconfidence = "single"\n'))
    workspace = create(folder / f"workspace-{experiments}", str(task))
    ledger = open_ledger(workspace)
    session = Session.start(workspace, ledger, "night")
    base, conditions = session.state.started.base_commit, session.runs.conditions()
    texts = [session.text_at(base), *(f"# Notes\n\nIdea {number}\n" for number in range(2, experiments + 1))]
    commits = import_commits(workspace.root, base, session.task.files.editable, texts)
    events: list[Event] = []
    for number, (text, commit) in enumerate(zip(texts, commits, strict=True), start=1):
        events += night(number, text, commit, base, conditions, last=number == experiments)
    with ledger.transaction() as transaction:
        transaction.events = events
    ledger.state()  # notes the checkpoint, as the servers of such a night have done all along
    ledger.close()
    session.worktree.write(texts[-1].encode())
    return workspace.root


def night(number: int, text: str, commit: str, base: str, conditions: str, last: bool) -> list[Event]:
    """The events of one experiment."""
    digest = sha256(text.encode())
    events: list[Event] = [
        ExperimentCommitted(
            experiment=number, session="night", commit=commit, parent=base, file_sha256=digest, lines=3, added=2, removed=1,
            description=f"idea {number} of part {number % 37}: another rate for the warm-up of the matrices",
            hypothesis="the matrices are starved early on", change_sha256=digest, places=[f"PART_{number % 37}", "GPT.forward"],
        ),
        RunStarted(run=number, experiment=number, seed=SEED, conditions=conditions),
        RunEnded(
            run=number, outcome="scored", score=100.0 if last else 1.0 + (number * 7919 % 1000) / 1e6 - 0.5 * (number > 1),
            seconds={"queued": 0.1, "startup": 3.0, "training": 60.0, "export": 1.0, "evaluation": 5.0}, peak_memory_mb=900.0,
        ),
    ]  # fmt: skip
    if not last:
        verdict = VerdictGiven(
            experiment=number, verdict="keep" if number == 1 else "discard", reason="by the rule", learned=f"{number} taught little"
        )
        events += [verdict, Settled(experiment=number)]
    return events


def import_commits(root: Path, base: str, path: str, texts: list[str]) -> list[str]:
    """One commit on `base` for each text of the file, in one process."""
    stream: list[str] = []
    for mark, text in enumerate(texts, start=1):
        stream.append(f"reset refs/heads/import\nfrom {base}\n\ncommit refs/heads/import\nmark :{mark}\n")
        stream.append(f"committer a <a@example.org> {1_700_000_000 + mark} +0000\ndata 1\nx\nfrom {base}\n")
        stream.append(f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n")
    marks = root / ".autoresearch" / "marks"
    command = ["git", "-C", str(root), "fast-import", "--quiet", "--force", f"--export-marks={marks}"]
    subprocess.run(command, input="".join(stream).encode(), check=True)
    subprocess.run(["git", "-C", str(root), "branch", "-q", "-D", "import"], check=True)
    found = dict(line.split() for line in marks.read_text().splitlines())
    return [found[f":{mark}"] for mark in range(1, len(texts) + 1)]


async def measure(root: Path) -> dict[str, float]:
    """Seconds to tools/list, milliseconds of the slowest of the repeated calls, MiB of memory."""
    arguments = ["-m", "autoresearch_mcp.cli", "serve", "--workspace", str(root)]
    figures: dict[str, float] = {}
    started = time.monotonic()
    async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ)))) as client:
        await client.list_tools()
        figures["tools/list s"] = time.monotonic() - started
        await anyio.sleep(THOUGHT)
        server = next(p for p in psutil.Process().children(recursive=True) if str(root) in p.cmdline())

        async def call(name: str, **values: object) -> float:
            began = time.monotonic()
            result = await client.call_tool(name, values)
            assert not result.is_error, result.content
            return (time.monotonic() - began) * 1000

        figures["status"] = max([await call("status") for _ in range(REPEATS)])
        figures["history"] = max([await call("history") for _ in range(REPEATS)])
        figures["history search"] = max([await call("history", search="rate part") for _ in range(REPEATS)])
        figures["read_notes"] = max([await call("read_notes") for _ in range(REPEATS)])
        figures["keep"] = await call("keep", learned="it was worth the night")
        figures["apply_patch"] = await call("apply_patch", patch="@@\n # Notes\n+\n+More.\n")
        figures["MiB"] = server.memory_info().rss / 2**20
    return figures


def main(sizes: list[int]) -> None:
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTORESEARCH_CACHE"] = folder
        for size in sizes:
            root = build(Path(folder), size // EVENTS)
            rows[size] = anyio.run(measure, root)
            time.sleep(1)
    names = ["tools/list s", *CALLS, "MiB"]
    print(f"{'events':>10} " + " ".join(f"{name:>14}" for name in names))
    for size, figures in rows.items():
        print(
            f"{size:>10,} "
            + " ".join(
                f"{figures[name]:>14.2f}" if name.endswith("s") and "/" in name else f"{figures[name]:>14.0f}" for name in names
            )
        )
    smallest, largest = rows[min(rows)], rows[max(rows)]
    print(f"{'growth':>10} " + " ".join(f"{largest[name] / smallest[name]:>13.1f}x" for name in names))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or list(SIZES))
