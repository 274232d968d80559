"""The job by which a run gets onto a Ray cluster from a machine that is no part of it, and by which that machine hears of it.

    python -P -m autoresearch_mcp.executors.relay order.pickle
    python -P -m autoresearch_mcp.executors.relay --follow NAME RUN
    python -P -m autoresearch_mcp.executors.relay --stop NAME RUN

What it tells is one line of JSON each time in its own log, after a mark: where the run is, what its logs have gained, and in the
end its result. It decides nothing: the result is in the cluster's table whether it lives or not.
"""

import json
import os
import pickle
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors.cluster import Cluster
from autoresearch_mcp.executors.remote import LOGS
from autoresearch_mcp.executors.table import Order

ORDER = "order.pickle"
MARK = "autoresearch: "
EVERY, ANYHOW = 1.0, 5.0  # seconds between looks, and after which it is told where the run is though nothing else is new


def tell(said: dict[str, Any]) -> None:
    logs = {name: content.decode("utf-8", errors="surrogateescape") for name, content in said.get("logs", {}).items()}
    print(MARK + json.dumps(said | {"logs": logs}), flush=True)


def follow(cluster: Cluster, name: str, run: int) -> None:
    """Until the run has ended."""
    sizes: dict[str, int] = dict.fromkeys(LOGS, 0)
    told = 0.0
    while cluster.is_alive(name, run):
        said = cluster.look(name, sizes)
        if said is not None and (said["logs"] or time.monotonic() - told > ANYHOW):
            told = time.monotonic()
            sizes = {log: size + len(said["logs"].get(log, b"")) for log, size in sizes.items()}
            tell(said)
        time.sleep(EVERY)
    logs = {log: content[sizes[log] :] for log, content in cluster.finish(name).items() if log in sizes}
    tell({"logs": logs, "ended": cluster.collect(name, run).decode()})


def main(what: str, name: str = "", run: str = "0") -> None:
    given = b"" if what.startswith("--") else Path(what).read_bytes()  # it lies where Ray may clean up as soon as it is asked
    cluster = Cluster(os.environ.get("RAY_ADDRESS", "auto"))
    if what == "--stop":
        cluster.stop(name, int(run))
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a job that is stopped by hand is ended soon after; the run is not
    if what == "--follow":
        follow(cluster, name, int(run))
        return
    order: Order = pickle.loads(given)
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
