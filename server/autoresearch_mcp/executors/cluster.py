"""A Ray cluster as seen by a process that is connected to it: places runs there and answers for them, by name."""

import importlib
import json
import os
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors import carrying
from autoresearch_mcp.executors.carrying import Manifest
from autoresearch_mcp.executors.remote import LOGS, Remote
from autoresearch_mcp.executors.table import KINDS, NAMESPACE, RUN, Order, Table, Wants, stopped_before, unpacked, uses
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.text import one_line

Kept = tuple[bytes, bool]  # the end of a log, and whether anything before it is left out
REASON = 300  # characters of Ray's own account
LOOK = 3.0  # seconds that a run's node has for an answer


class Cluster:
    """Raises whatever Ray does where the cluster cannot be reached."""

    def __init__(self, address: str):
        self.ray: Any = importlib.import_module("ray")
        os.environ.pop("RAY_ADDRESS", None)  # else it would count more than the address
        self.ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        self.table = Table()
        self._bringing = threading.Lock()
        self._handles: dict[str, Any] = {}
        """Of runs that this process has started, by which Ray tells why one has ended."""

    def start(self, order: Order) -> None:
        wanted = order.wants.of(self.nodes())
        held = carrying.library(self.ray, order.data) if order.data is not None else None
        # in the table, for an argument that is large would belong to this process, and be lost with it
        self.table.put(order.name, "order", pickle.dumps(replace(order, folder=None, wanted=wanted)))
        options: dict[str, Any] = {
            "name": order.name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_concurrency": 4,
            "scheduling_strategy": "SPREAD",
            "num_cpus": wanted.get("CPU", 0),
            "num_gpus": wanted.get("GPU", 0),
            "resources": {name: count for name, count in wanted.items() if name not in KINDS},
        }
        self._handles[order.name] = self.ray.remote(Remote).options(**options).remote(order.name, held)
        if order.data is not None and order.folder is not None:
            threading.Thread(target=self._bring, args=(held, order.data, order.folder), daemon=True).start()

    def _bring(self, held: Any, data: Manifest, folder: Path) -> None:
        """The run waits for it on its node, and says so if it does not come."""
        with self._bringing:  # of two runs with the same data the second finds all of it there
            try:
                carrying.bring(self.ray, held, data, folder)
            except Exception as error:
                print(f"{folder} was not brought to the cluster: {error}", file=sys.stderr)

    def is_alive(self, name: str, run: int) -> bool:
        return self._actor(name) is not None

    def stop(self, name: str, run: int) -> None:
        """One that has not begun is taken out of the queue."""
        self.table.put(name, "stop", b"1")
        if self.table.get(name, "begun") is None and (actor := self._actor(name)) is not None:
            self.table.put(name, "ended", stopped_before(run).model_dump_json().encode(), overwrite=False)
            self.ray.kill(actor)

    def look(self, name: str, sizes: dict[str, int]) -> dict[str, Any] | None:
        """Where the run is, and what its logs have beyond these sizes; None while it waits for room."""
        actor = self._actor(name)
        if actor is None or self.table.get(name, "begun") is None:
            return None
        return self.ray.get(actor.look.remote(sizes), timeout=LOOK)

    def collect(self, name: str, run: int) -> bytes:
        """The result of a run that is not alive: if there is none yet, that it is lost, for good."""
        if (kept := self.table.get(name, "ended")) is not None:
            return kept
        begun = self.table.get(name, "begun") is not None
        reason = "its node of the cluster, or what held it there, was lost before there was a result"
        if (handle := self._handles.pop(name, None)) is not None:
            try:
                self.ray.get(handle.look.remote({}), timeout=LOOK)
            except Exception as error:  # Ray's account of how it ended
                reason += f": {one_line(str(error), REASON)}"
        lost = RunEnded(run=run, outcome="crash", failure="lost", seconds={} if begun else NEVER, excerpt=reason)
        self.table.put(name, "ended", lost.model_dump_json().encode(), overwrite=False)
        self.table.drop(name, "begun")
        return self.table.get(name, "ended") or b""

    def finish(self, name: str) -> dict[str, Kept]:
        """The logs of a run that is not alive; then only what `collect` needs stays behind."""
        logs = json.loads(self.table.get(name, "logs") or b"{}")
        self.table.drop(name, "logs", "stop", "order")
        return {log: (unpacked(content), cut) for log, (content, cut) in logs.items() if log in LOGS}

    def capacity(self, wants: Wants) -> int:
        return wants.capacity(self.nodes())

    def in_use(self) -> list[Use]:
        waiting: dict[str, int] = {}
        for name in self._names():
            if name.startswith(RUN) and self.table.get(name, "begun") is None:
                ordered = self.table.get(name, "order")
                for kind in pickle.loads(ordered).wanted if ordered else ():
                    waiting[kind] = waiting.get(kind, 0) + 1
        return uses(self.used(), waiting)

    def used(self) -> dict[str, tuple[float, float]]:
        """How much is used and there of each of the cluster's resources."""
        there, free = self.ray.cluster_resources(), self.ray.available_resources()
        return {kind: (count - free.get(kind, 0.0), count) for kind, count in there.items()}

    def _actor(self, name: str) -> Any:
        """The process that holds a run, placed or waiting for room; None where there is none, or none any more."""
        if name not in self._names():  # asked first, for get_actor answers from memory though the head has forgotten all
            return None
        try:
            return self.ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:  # Ray's word for that
            return None

    def holds(self, job: str) -> bool:
        """Whether a job that is on is this cluster's."""
        return any(actor["name"].endswith(job) for actor in self.ray.util.list_named_actors(all_namespaces=True))

    def _names(self) -> set[str]:
        """Of all actors of ours that there are."""
        there = self.ray.util.list_named_actors(all_namespaces=True)
        return {actor["name"] for actor in there if actor["namespace"] == NAMESPACE}

    def nodes(self) -> list[dict[str, float]]:
        """What each living node offers."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
