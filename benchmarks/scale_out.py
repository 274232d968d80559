"""How many experiments an hour several slots make, against as many times what one run takes: waves of runs that sleep, so that two
cores stand for any number of machines.

    python benchmarks/scale_out.py [--seconds 30] [--slots 1,2,4,8,16] [--rounds 4] [--executors local,ray]

Every run takes one seat of a named resource and no core; a wave has `rounds` runs for each seat. Time counts from the call of
run_batch to the row of the last result, so commits, hosts, sandboxes and scoring are in it; the session is looked at as often as a
client that waits has it looked at. Ideal is rounds times the seconds that a run sleeps. A Ray cluster has two nodes on this machine
that share the seats, and a head without any.

What a night pays once is shown by itself: before each wave comes one of a single round, and the last column but one says how much
longer than its runs it took. On Ray that is where a process is started for each slot, on this machine's cores, however many slots
they stand for; they stay for the wave that is measured. What Ray adds to a run is the difference to the row above, by rounds.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from autoresearch_mcp.calls import POLL_LAST
from autoresearch_mcp.create import create
from autoresearch_mcp.executors import chosen
from autoresearch_mcp.loop import batch, waves
from autoresearch_mcp.loop.batch import Entry
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.run import disturbance, slots
from autoresearch_mcp.workspace import Workspace

TARGET = 0.95  # of linear
TASK = """
name = "seats"
goal = "None: it measures the machine."

[files]
editable = "work.py"

[run]
command = ["{python}", "work.py"]
outputs = ["result.txt"]
budget_seconds = 600
cpus = 0
resources = {seat = 1}

[metric]
name = "score"
direction = "maximize"
confidence = "single"
command = ["{python}", "-c", "print(open('result.txt').read())"]
"""
WORK = "import time\n\nsleep, number = 0.0, 0\ntime.sleep(sleep)\nopen('result.txt', 'w').write(str(number))\n"
LINE = "sleep, number = 0.0, 0"


def entry(seconds: float, number: int) -> Entry:
    return Entry(f"<<<<<<< SEARCH\n{LINE}\n=======\nsleep, number = {seconds}, {number}\n>>>>>>> REPLACE\n", f"sleeper {number}")


@contextmanager
def cluster_of(seats: int) -> Generator[None]:
    """Has new sessions run on a Ray cluster on this machine."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    caches = tempfile.TemporaryDirectory()  # one for each node, or they would share slots as one machine
    for number, share in enumerate((seats - seats // 2, seats // 2)):
        if share:
            cluster.add_node(num_cpus=2, resources={"seat": share}, env_vars={"AUTORESEARCH_CACHE": f"{caches.name}/{number}"})
    os.environ |= {chosen.SETTING: "ray", chosen.ADDRESS: cluster.address}
    try:
        yield
    finally:
        caches.cleanup()
        for name in (chosen.SETTING, chosen.ADDRESS):
            del os.environ[name]
        chosen.on_cluster.cache_clear()
        cluster.shutdown()


def ended(session: Session) -> bool:
    session.refresh()
    return not session.state.running


def made(folder: Path) -> Workspace:
    """A workspace of the task in a folder."""
    (folder / "task").mkdir()
    (folder / "task" / "autoresearch.toml").write_text(TASK)
    (folder / "task" / "work.py").write_text(WORK)
    return create(folder / "workspace", str(folder / "task"))


def night(folder: Path, seats: int, rounds: int, seconds: float) -> tuple[float, float]:
    """Seconds that a wave of one run for each seat takes, and that one of `rounds` does after it."""
    os.environ[slots.SETTING] = f"seat={seats}"
    workspace = made(folder)
    session = Session.start(workspace, open_ledger(workspace))
    session.run_experiment("baseline")
    while not ended(session):
        time.sleep(0.05)
    session.keep()
    first = wave(session, seats, seconds, 1)
    session.discard()
    return first, wave(session, seats * rounds, seconds, 1 + seats)


def wave(session: Session, runs: int, seconds: float, first: int) -> float:
    """Seconds that it takes. Each of the runs is worse than the best, so that one decides; `first`: by how much the first is."""
    started = advanced = time.perf_counter()
    numbers = batch.run_batch(session, [entry(seconds, -number) for number in range(first, first + runs)])
    while not waves.is_over(session.state, session.task):
        time.sleep(0.05)
        if time.perf_counter() - advanced > POLL_LAST:
            session.advance()
            advanced = time.perf_counter()
    took = time.perf_counter() - started
    scored = [session.experiment(number).score for number in numbers if isinstance(number, int)]
    if len(scored) != runs or None in scored:
        sys.exit(f"{runs} runs: {numbers}, {scored}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--slots", default="1,2,4,8,16")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--executors", default="local,ray")
    arguments = parser.parse_args()
    os.environ[disturbance.SETTING] = "100"  # what this process does disturbs no run that sleeps
    print(f"runs that sleep {arguments.seconds:g} s, {arguments.rounds} for each slot; target {TARGET:.0%} of linear\n")
    print("| slots | where | runs | seconds | ideal | experiments an hour | of linear | once, s | Ray adds, s a run |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for seats in map(int, arguments.slots.split(",")):
        here = None
        for executor in arguments.executors.split(","):
            with tempfile.TemporaryDirectory() as folder, cluster_of(seats) if executor == "ray" else nullcontext():
                first, took = night(Path(folder), seats, arguments.rounds, arguments.seconds)
            ideal, runs = arguments.rounds * arguments.seconds, seats * arguments.rounds
            added = f"{(took - here) / arguments.rounds:.2f}" if executor == "ray" and here is not None else ""
            here = took if executor == "local" else here
            figures = f"{took:.1f} | {ideal:.1f} | {3600 * runs / took:.0f} | {ideal / took:.1%} | {first - arguments.seconds:.1f}"
            print(f"| {seats} | {executor} | {runs} | {figures} | {added} |", flush=True)


if __name__ == "__main__":
    main()
