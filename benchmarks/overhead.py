"""What a run takes besides its budget, and where that goes: through the server's own session, against the same train.py run by hand
with a plain evaluation in its own process, and against what the original reports, side by side in turns.

    python benchmarks/overhead.py [PRESET] [--budget SECONDS] [--rounds N]

Four ways take turns. *ready*: between runs the session has had the seconds that an agent thinks (THINKING) to make the next
ones ready, as a server does by itself. *at once*: a run that follows that one without a pause, as repeats do. *at once again*:
one more, for which nothing has been made ready. *plain*: `python train.py`, which imports, trains and scores in one process,
without sandbox, proof, holdout or record. Wall time counts from the call to the row in the ledger. Optimiser steps made within
the budget are compared too: trust must not take compute from training.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.run.sandbox import ALLOCATOR
from autoresearch_mcp.workspace import Workspace

TARGET = {"cpu": 6.0, "gpu": 9.0}  # seconds besides the budget
THINKING = 20.0  # seconds
ORIGINAL = (325.9, 300.1)  # total and training seconds on an H100, in the sample output of autoresearch's program.md
PHASES = ("queued", "startup", "check", "training", "export", "evaluation")


@dataclass
class Timed:
    wall: float
    steps: int
    phases: dict[str, float] = field(default_factory=dict[str, float])


def steps(log: str) -> int:
    found = re.search(r"num_steps: +(\d+)", log)
    return int(found.group(1)) if found else 0


def run(session: Session, thinking: float) -> Timed:
    """One supervised run, from the call to its row."""
    for _ in range(int(thinking)):
        session.runs.get_ready()
        time.sleep(1.0)
    started = time.perf_counter()
    number, _ = session.run_experiment("overhead", replicate=bool(session.state.experiments))
    while session.experiment(number).running:
        time.sleep(0.02)
        session.refresh()
    wall = time.perf_counter() - started
    last = session.experiment(number).runs[-1]
    assert last.ended is not None and last.ended.score is not None, last.ended
    spec = session.spec(last.started.run)
    assert spec is not None
    while session.executor.is_alive(spec):  # it says goodbye
        time.sleep(0.02)
    return Timed(wall, steps(spec.log.read_text()), last.ended.seconds)


def plain(session: Session, budget: float) -> Timed:
    """The same train.py by hand."""
    own = {
        "AUTORESEARCH_PRESET": session.task.preset or "",
        "AUTORESEARCH_DATA": str(session.data.path),
        "AUTORESEARCH_BUDGET": str(budget),
    }
    started = time.perf_counter()
    command = [sys.executable, session.task.files.editable]
    environment = os.environ | ALLOCATOR | own
    result = subprocess.run(command, cwd=session.worktree.root, env=environment, capture_output=True, text=True, check=True)
    return Timed(time.perf_counter() - started, steps(result.stdout))


def workspace(folder: Path, preset: str, budget: float | None) -> Workspace:
    made = create(folder, "default", preset)
    if budget is not None:
        toml = made.root / "autoresearch.toml"
        head, tail = toml.read_text().split(f"[presets.{preset}.run]", 1)
        tail = re.sub(r"budget_seconds = \S+", f"budget_seconds = {budget:g}", tail, count=1)
        toml.write_text(f"{head}[presets.{preset}.run]{tail}")
        made.run("commit", "-qam", "Budget of the benchmark")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("preset", nargs="?", default="cpu")
    parser.add_argument("--budget", type=float)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = workspace(Path(folder) / "workspace", arguments.preset, arguments.budget)
        session = Session.start(made, open_ledger(made))
        session.data.prepare(made.root)
        budget = session.task.run.budget_seconds
        timed: dict[str, list[Timed]] = {"ready": [], "at once": [], "at once again": [], "plain": []}
        for _ in range(arguments.rounds):
            timed["ready"].append(run(session, THINKING))
            timed["at once"].append(run(session, 0.0))
            timed["at once again"].append(run(session, 0.0))
            timed["plain"].append(plain(session, budget))
        level = session.experiment(1).last
    print(f"preset {arguments.preset}, budget {budget:g} s, {arguments.rounds} rounds, sandbox {level and level.enforcement}")
    columns = ("", "seconds besides the budget, of each", "median", "steps", *PHASES)
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for way, ways in timed.items():
        besides = [one.wall - budget for one in ways]
        phases = [f"{median(one.phases.get(phase, 0.0) for one in ways):.1f}" if ways[0].phases else "" for phase in PHASES]
        shown = ", ".join(f"{seconds:.1f}" for seconds in besides)
        print(f"| {way} | {shown} | {median(besides):.1f} | {median(one.steps for one in ways):.0f} | {' | '.join(phases)} |")
    print(f"| the original, H100 | {ORIGINAL[0] - ORIGINAL[1]:.1f} | | | {' | ' * (len(PHASES) - 1)} |")
    target = TARGET.get(arguments.preset, TARGET["cpu"])
    reached = median(one.wall - budget for one in timed["ready"])
    print(f"\ntarget {target:g} s: {reached / target:.2f} of it. Scoring is recorded in whole seconds.")


if __name__ == "__main__":
    main()
