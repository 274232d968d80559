"""A Ray cluster as seen by a process that is connected to it: places runs there and answers for them, by name."""

import importlib
import json
import os
import zlib
from dataclasses import replace
from typing import Any

from autoresearch_mcp.executors import carrying
from autoresearch_mcp.executors.remote import Remote
from autoresearch_mcp.executors.table import KINDS, NAMESPACE, RUN, Order, Table, Wants, uses
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run.slots import Use
from autoresearch_mcp.text import one_line

REASON = 300  # characters of Ray's own account
LOOK = 3.0  # seconds that a run's node has for an answer


class Cluster:
    """Raises whatever Ray does where the cluster cannot be reached."""

    def __init__(self, address: str):
        self.ray: Any = importlib.import_module("ray")
        os.environ.pop("RAY_ADDRESS", None)  # else it would count more than the address
        self.ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        self.table = Table()
        self._handles: dict[str, Any] = {}
        """Of runs that this process has started, by which Ray tells why one has ended."""

    def start(self, order: Order) -> None:
        wanted = order.wants.of(self._nodes())
        library = carrying.library(self.ray, order.data, order.folder) if order.data and order.folder else None
        self.table.put(order.name, "wants", json.dumps(wanted).encode())
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
        there = replace(order, folder=None)
        self._handles[order.name] = self.ray.remote(Remote).options(**options).remote(there, library)

    def is_alive(self, name: str, run: int) -> bool:
        return self._actor(name) is not None

    def stop(self, name: str, run: int) -> None:
        """One that has not begun is taken out of the queue."""
        self.table.put(name, "stop", b"1")
        if self.table.get(name, "begun") is None and (actor := self._actor(name)) is not None:
            never = RunEnded(
                run=run,
                outcome="crash",
                failure="killed",
                stopped=True,
                seconds={"queued": 0.0},
                excerpt="the run was stopped on request",
            )
            self.table.put(name, "ended", never.model_dump_json().encode(), overwrite=False)
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
        reason = "its node of the cluster, or what held it there, was lost before there was a result"
        if (handle := self._handles.pop(name, None)) is not None:
            try:
                self.ray.get(handle.look.remote({}), timeout=LOOK)
            except Exception as error:  # Ray's account of how it ended
                reason += f": {one_line(str(error), REASON)}"
        lost = RunEnded(run=run, outcome="crash", failure="lost", excerpt=reason)
        self.table.put(name, "ended", lost.model_dump_json().encode(), overwrite=False)
        return self.table.get(name, "ended") or b""

    def finish(self, name: str) -> dict[str, bytes]:
        """The whole logs of a run that is not alive, as far as they were kept; nothing but the result stays behind."""
        logs = self.table.get(name, "logs")
        self.table.drop(name, "logs", "begun", "stop", "wants")
        return {log: zlib.decompress(bytes.fromhex(content)) for log, content in json.loads(logs or b"{}").items()}

    def capacity(self, wants: Wants) -> int:
        return wants.capacity(self._nodes())

    def in_use(self) -> list[Use]:
        there, free = self.ray.cluster_resources(), self.ray.available_resources()
        waiting: dict[str, int] = {}
        for name in self._names():
            if name.startswith(RUN) and self.table.get(name, "begun") is None:
                for kind in json.loads(self.table.get(name, "wants") or b"{}"):
                    waiting[kind] = waiting.get(kind, 0) + 1
        return uses({kind: (count - free.get(kind, 0.0), count) for kind, count in there.items()}, waiting)

    def _actor(self, name: str) -> Any:
        """The process that holds a run, placed or waiting for room; None where there is none, or none any more."""
        if name not in self._names():  # asked first, for get_actor answers from memory though the head has forgotten all
            return None
        try:
            return self.ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:  # Ray's word for that
            return None

    def _names(self) -> set[str]:
        """Of all actors of ours that there are."""
        there = self.ray.util.list_named_actors(all_namespaces=True)
        return {actor["name"] for actor in there if actor["namespace"] == NAMESPACE}

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node offers."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
