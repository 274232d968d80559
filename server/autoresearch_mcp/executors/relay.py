"""The job by which a run gets onto a Ray cluster from a machine that is no part of it, and by which that machine hears of it.

    python -P -m autoresearch_mcp.executors.relay order.pickle
    python -P -m autoresearch_mcp.executors.relay --follow NAME RUN
    python -P -m autoresearch_mcp.executors.relay --stop NAME RUN
    python -P -m autoresearch_mcp.executors.relay --nodes

What it tells is one line of JSON each time in its own log, after a mark: where the run is, what its logs have gained, and in the
end its result. It decides nothing: the result is in the cluster's table whether it lives or not.
"""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors.cluster import Cluster
from autoresearch_mcp.executors.remote import LOGS
from autoresearch_mcp.executors.table import Order, packed

ORDER = "order.pickle"
MARK = "autoresearch: "
EVERY, ANYHOW = 1.0, 5.0  # seconds between looks, and after which it is told where the run is though nothing else is new
TOLD = 1 << 17  # bytes of one log that are told while the run is on, and as many of its end: all of it is read again at each look
CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def tell(**said: Any) -> None:
    print(MARK + json.dumps(said), flush=True)


def follow(cluster: Cluster, name: str, run: int) -> None:
    """Until the run has ended. Raises what Ray does where the cluster is gone: then another follower is sent."""
    sizes: dict[str, int] = dict.fromkeys(LOGS, 0)
    last = 0.0
    while cluster.is_alive(name, run):
        try:
            said = cluster.look(name, {log: size for log, size in sizes.items() if size < TOLD})
        except Exception:  # its node is slow, or it is just ending
            said = None
        if said is not None and (said["logs"] or time.monotonic() - last > ANYHOW):
            last = time.monotonic()
            logs = {log: more[: TOLD - sizes[log]] for log, more in said["logs"].items()}
            sizes |= {log: sizes[log] + len(more) for log, more in logs.items()}
            tell(progress=said["progress"], logs={log: packed(more) for log, more in logs.items()})
        time.sleep(EVERY)
    ends = {log: (packed(content[-TOLD:]), cut or len(content) > TOLD) for log, (content, cut) in cluster.finish(name).items()}
    tell(ends=ends, ended=cluster.collect(name, run).decode())


def main(what: str, name: str = "", run: str = "0") -> None:
    given = b"" if what.startswith("--") else Path(what).read_bytes()
    config = json.loads(os.environ.get(CONFIG) or "{}")
    config.pop("runtime_env", None)  # else all that it starts would have its files sent along, the data among them
    os.environ[CONFIG] = json.dumps(config)
    address = os.environ.get("RAY_ADDRESS", "auto")
    cluster = Cluster(address)
    if not cluster.holds(job := config.get("metadata", {}).get("job_submission_id", "")):  # to which every run would be lost
        raise SystemExit(
            f"Ray has sent the job {job} to another cluster, {address}, than the one that it was given to: two share a machine and "
            "a folder for temporary files. Start each with a --temp-dir of its own."
        )
    if what == "--nodes":
        tell(nodes=cluster.nodes(), used=cluster.used())
        return
    if what == "--stop":
        cluster.stop(name, int(run))
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a job that is stopped by hand is ended soon after; the run is not
    tell(here=True)
    if what == "--follow":
        follow(cluster, name, int(run))
        return
    order = Order.unpickled(given)
    if order.folder is not None:
        order = replace(order, folder=_data(order))
    cluster.start(order)
    follow(cluster, order.name, order.run)


def _data(order: Order) -> Path:
    """Where the job has the data that was sent with it."""
    assert order.folder is not None and order.data is not None, "only a task with data sends any"
    for place in sys.path:
        folder = Path(place) / order.folder.name
        if all((folder / name).is_file() for name, _, _ in order.data.files):
            return folder
    raise SystemExit(f"the data {order.folder.name} did not come with the job")


if __name__ == "__main__":
    main(*sys.argv[1:])
