"""What trust costs: one training run inside sandbox, clock, export and evaluator, against the same train.py run by hand with a
plain in-process evaluation, side by side in turns.

    python benchmarks/trust.py [PRESET] [BUDGET_SECONDS] [ROUNDS]

Both train for the same budget, so what differs in wall time beyond it is the price: sandbox, handing over data, digests,
export, the evaluator's start, the causality probe and the sealed holdout. It also compares optimiser steps made within the
budget: trust must not take compute from training.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoresearch_mcp.create import create
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.run.sandbox import ALLOCATOR

TARGET_SECONDS = {"cpu": 5.3, "tiny": 5.3, "gpu": 3.0}  # gpu: 1 % of a 300 s run


def steps(log: str) -> int:
    found = re.search(r"num_steps: +(\d+)", log)
    return int(found.group(1)) if found else 0


def trusted(session: Session) -> tuple[float, int, dict[str, float]]:
    """Wall seconds of one supervised run, its steps, and where its time went."""
    started = time.perf_counter()
    number, _ = session.run_experiment("trusted", replicate=bool(session.state.experiments))
    while session.experiment(number).running:
        time.sleep(0.1)
        session.refresh()
    wall = time.perf_counter() - started
    run = session.experiment(number).runs[-1]
    assert run.ended is not None and run.ended.score is not None, run.ended
    spec = session.spec(run.started.run)
    assert spec is not None
    return wall, steps(spec.log.read_text()), run.ended.seconds


def plain(session: Session, budget: float) -> tuple[float, int]:
    """Wall seconds and steps of the same train.py by hand."""
    environment = (
        os.environ
        | ALLOCATOR
        | {
            "AUTORESEARCH_PRESET": session.task.preset or "",
            "AUTORESEARCH_DATA": str(session.data.path),
            "AUTORESEARCH_BUDGET": str(budget),
        }
    )
    started = time.perf_counter()
    command = [sys.executable, session.task.files.editable]
    result = subprocess.run(command, cwd=session.worktree.root, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, steps(result.stdout)


def main(preset: str, budget: float | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = create(Path(folder) / "workspace", "default", preset).root
        if budget is not None:
            toml = root / "autoresearch.toml"
            head, tail = toml.read_text().split(f"[presets.{preset}.run]", 1)
            tail = re.sub(r"budget_seconds = \S+", f"budget_seconds = {budget}", tail, count=1)
            toml.write_text(f"{head}[presets.{preset}.run]{tail}")
            identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
            subprocess.run(["git", *identity, "commit", "-qam", "Budget of the benchmark"], cwd=root, check=True)
        from autoresearch_mcp.workspace import Workspace

        workspace = Workspace(root)
        session = Session.start(workspace, open_ledger(workspace))
        session.data.prepare(root)
        seconds = session.task.run.budget_seconds
        with_trust: list[tuple[float, int, dict[str, float]]] = []
        without: list[tuple[float, int]] = []
        for _ in range(rounds):
            with_trust.append(trusted(session))
            without.append(plain(session, seconds))
    added = statistics.median(wall for wall, _, _ in with_trust) - statistics.median(wall for wall, _ in without)
    ratio = statistics.median(made for _, made, _ in with_trust) / statistics.median(made for _, made in without)
    print(f"preset {preset}, budget {seconds:g} s, {rounds} rounds, sandbox {session.experiment(1).last.enforcement}")  # type: ignore[union-attr]
    print(f"wall, trusted:   {', '.join(f'{wall:.1f}' for wall, _, _ in with_trust)} s")
    print(f"wall, plain:     {', '.join(f'{wall:.1f}' for wall, _ in without)} s")
    print(f"added by trust:  {added:.1f} s, {added / TARGET_SECONDS[preset]:.2f} of the target, {added / 300:.2%} of a 300 s run")
    print(f"steps in budget: {ratio:.3f} of the plain run's")
    print(f"where it went:   {with_trust[-1][2]}")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "cpu",
        float(sys.argv[2]) if len(sys.argv) > 2 else None,
        int((sys.argv + ["2"] * 4)[3]),
    )
