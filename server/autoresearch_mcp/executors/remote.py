"""A run on a node of a Ray cluster: the actor that sees to it there.

On its node a run has the host that it would have on one machine: the strongest sandbox of that node, its clock, its slots, its
scoring. The host records nothing itself. This actor carries the result into the cluster's table, and only then does the run hear
its score; it ends when the host has ended, and its room is free. Where the actor dies, its host ends the run.
"""

import json
import os
import platform
import sys
import threading
import time
import traceback
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.executors import carrying
from autoresearch_mcp.executors.local import LocalExecutor
from autoresearch_mcp.executors.table import KINDS, NAMESPACE, NO_SLOTS, Order, Table
from autoresearch_mcp.files import try_lock
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import outputs, places, slots
from autoresearch_mcp.run.levels import REGISTRY
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.sandbox import OVERRIDE, detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import torch_version

LOGS = ("output.log", "scoring.log", "called.log", "checks.log", "compile.log", "host.log")
BLOCK = 1 << 18  # bytes of a log that travel at once
KEPT = 1 << 20  # bytes of each log's end that are kept for who comes later
POLL, ASK = 0.05, 0.5  # seconds between looks at the host, and at whether the run shall stop
KIND = "ray"  # how the names of its folders begin


def versions() -> dict[str, str]:
    """Of what must be the same where a run is given and where it is made."""
    return {"autoresearch-mcp": __version__, "torch": torch_version(), "Python": ".".join(platform.python_version_tuple()[:2])}


class Remote:
    """The actor."""

    def __init__(self, order: Order, library: Any):
        import ray

        self._ray: Any = ray
        self._node = ray.get_runtime_context().get_node_id()
        self._order, self._library, self._table = order, library, Table()
        self._executor = LocalExecutor()
        self._spec: RunSpec | None = None
        threading.Thread(target=self._hold, daemon=True).start()

    def look(self, sizes: dict[str, int]) -> dict[str, Any]:
        """Where the run is, and what its logs have beyond these sizes."""
        if (spec := self._spec) is None:
            return {"progress": Progress().model_dump_json(), "logs": {}}
        logs = {name: more for name, size in sizes.items() if (more := _read(spec.folder / name, size, BLOCK))}
        return {"progress": self._executor.progress(spec).model_dump_json(), "logs": logs}

    def _hold(self) -> None:
        """From beginning to end of the run, and of this process."""
        name = self._order.name
        self._table.put(name, "begun", b"1")
        if self._table.get(name, "ended") is None:  # else it was stopped in the queue
            try:
                self._run()
            except Exception as error:
                told = str(error) if isinstance(error, AutoresearchError | OSError) else traceback.format_exc(limit=-3)
                self._carry(self._failed("crash", "lost", f"it could not be run on {platform.node()}: {told}"))
        self._ray.kill(self._ray.get_actor(name, namespace=NAMESPACE))

    def _run(self) -> None:
        given = RunSpec.model_validate_json(self._order.spec)
        if (ours := versions()) != self._order.versions:
            there = ", ".join(f"{name} {ours[name]}" for name, version in self._order.versions.items() if ours[name] != version)
            ours_is = ", ".join(f"{name} {version}" for name, version in self._order.versions.items() if ours[name] != version)
            reason = f"the node {platform.node()} has {there}, the server {ours_is}: install the same on both"
            self._carry(self._failed("refused", "refused", reason))
            return
        level = detect().level
        if level == "none" and os.environ.get(OVERRIDE) != "none":
            reason = (
                f"the node {platform.node()} can confine no run, which could then reach Ray itself: {REGISTRY[level].advice}; or "
                f"start Ray there with {OVERRIDE}=none in its environment, if every run is to be trusted"
            )
            self._carry(self._failed("refused", "refused", reason))
            return
        self._executor.sweep(KIND)
        os.environ[slots.SETTING] = self._resources()
        folder = places.root() / f"{KIND}-{given.token}"
        carrier = folder.with_suffix(".carrier")
        lock = try_lock(carrier)
        assert lock is not None, "a run is on one node, once"
        try:
            data = carrying.fetch(self._ray, self._order.data, self._library) if self._order.data else None
            here = {"folder": folder, "place": None, "ledger": None, "carrier": carrier, "data": data, "enforcement": level}
            self._spec = spec = given.model_copy(update=here)
            self._executor.start(spec, self._order.files)
            self._attend(spec)
        finally:
            os.close(lock)
            carrier.unlink(missing_ok=True)
            outputs.remove(folder)

    def _attend(self, spec: RunSpec) -> None:
        """Until the host has ended; its result is carried on as soon as it is there."""
        carried, asked = False, time.monotonic()
        while self._executor.is_alive(spec):
            if not carried and (ended := self._executor.collect(spec)) is not None:
                carried = self._carry(ended)
                spec.carried.touch()
            if time.monotonic() - asked > ASK:
                asked = time.monotonic()
                if self._table.get(self._order.name, "stop") is not None:
                    self._executor.stop(spec)
            time.sleep(POLL)
        self._executor.clean_up(spec)
        if not carried:
            lost = "the run's supervisor died before it recorded a result (killed, or out of memory)"
            self._carry(self._executor.collect(spec) or self._failed("crash", "lost", lost))
        ends = {name: _end(spec.folder / name) for name in LOGS}
        kept = {name: zlib.compress(content).hex() for name, content in ends.items() if content}
        self._table.put(self._order.name, "logs", json.dumps(kept).encode())

    def _carry(self, ended: RunEnded) -> bool:
        """Into the cluster's table. Tried until it is there: a cluster whose head is away comes back, or ends this process."""
        while True:
            try:
                self._table.put(self._order.name, "ended", ended.model_dump_json().encode(), overwrite=False)
                return True
            except Exception as error:
                print(f"the result of {self._order.name} is not in the cluster's table yet: {error}", file=sys.stderr)
            time.sleep(ASK)

    def _resources(self) -> str:
        """What this node offers by the names of tasks' own resources, as the slots of a machine have it in their setting."""
        nodes: dict[str, dict[str, float]] = {node["NodeID"]: node["Resources"] for node in self._ray.nodes()}
        there = nodes.get(self._node, {})
        own = {name: int(count) for name, count in there.items() if name not in KINDS and not name.startswith(NO_SLOTS)}
        return " ".join(f"{name}={count}" for name, count in own.items())

    def _failed(self, outcome: Any, failure: str, reason: str) -> RunEnded:
        enforcement = self._spec.enforcement if self._spec else "none"
        return RunEnded(run=self._order.run, outcome=outcome, failure=failure, enforcement=enforcement, excerpt=reason)


def _read(path: Path, start: int, most: int) -> bytes:
    with suppress(OSError), open(path, "rb") as log:
        log.seek(start)
        return log.read(most)
    return b""


def _end(path: Path) -> bytes:
    """The end of a log, marked where something is left out."""
    with suppress(OSError):
        size = path.stat().st_size
        cut = max(0, size - KEPT)
        return (b"[...]\n" if cut else b"") + _read(path, cut, KEPT)
    return b""
