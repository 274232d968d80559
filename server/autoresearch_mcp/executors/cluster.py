"""A Ray cluster as seen by a process that is connected to it: places runs there and answers for them, by name."""

import importlib
import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors import carrying
from autoresearch_mcp.executors.carrying import Manifest
from autoresearch_mcp.executors.remote import LOGS
from autoresearch_mcp.executors.table import (
    KINDS,
    LEFT,
    NAMESPACE,
    RUN,
    WAITING,
    Order,
    Table,
    Wants,
    actors_of,
    nodes_of,
    place,
    stopped_before,
    unpacked,
    uses,
)
from autoresearch_mcp.executors.turns import NAME, queue
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.slots import Use

Kept = tuple[bytes, bool]  # the end of a log, and whether anything before it is left out
LOOK = 3.0  # seconds that a run's node has for an answer
FRESH = 0.2  # seconds for which a run that was seen alive is taken to be it: many are asked for at a time
COME, PAUSE = 30.0, 0.5  # seconds that the queue has to be there, and between two looks


class Cluster:
    """Raises whatever Ray does where the cluster cannot be reached."""

    def __init__(self, address: str):
        self.ray: Any = importlib.import_module("ray")
        os.environ.pop("RAY_ADDRESS", None)  # else it would count more than the address
        self._address = address
        self._connect()
        self.table = Table()
        self._bringing = threading.Lock()
        self._alive: set[str] = set()
        """Runs that were alive when they were looked at last."""
        self._looked = 0.0

    def _connect(self) -> None:
        self.ray.init(address=self._address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")

    def start(self, order: Order) -> None:
        self._find_queue()  # first, so that nothing of a run is left where it cannot be placed
        held = carrying.library(self.ray, order.data) if order.data is not None else None
        order = replace(order, wanted=order.wants.of(self.nodes()), since=time.time())
        # in the table, for an argument that is large would belong to this process, and be lost with it
        self.table.put(order.name, "order", replace(order, folder=None).pickled())
        try:
            self.table.put(WAITING, order.name, order.written())
        except Exception:  # it may be there all the same, and is the ticket of a run that is lost now
            with suppress(Exception):
                self.stop(order.name, order.run)
            raise
        with suppress(Exception):  # it looks by itself
            queue(self.ray).come.remote()
        if order.data is not None and order.folder is not None:
            threading.Thread(target=self._bring, args=(held, order.data, order.folder), daemon=True).start()

    def _find_queue(self) -> None:
        """Waits until the queue is there. Raises what Ray does where it does not come."""
        deadline = time.monotonic() + COME
        while True:
            try:
                self.ray.get(queue(self.ray).come.remote(), timeout=COME)
                return
            except self.ray.exceptions.RayActorError:
                if time.monotonic() > deadline:
                    raise
            if NAME not in actors_of(self.ray):  # the head was restarted and has forgotten it, and this process has not
                self.ray.shutdown()
                try:
                    self._connect()
                except Exception:
                    os._exit(1)  # the next call begins with another process
            time.sleep(PAUSE)  # Ray is starting it anew

    def _bring(self, held: Any, data: Manifest, folder: Path) -> None:
        """The run waits for it on its node, and says so if it does not come."""
        with self._bringing:  # of two runs with the same data the second finds all of it there
            try:
                carrying.bring(self.ray, held, data, folder)
            except Exception as error:
                print(f"{folder} was not brought to the cluster: {error}", file=sys.stderr)

    def is_alive(self, name: str, run: int) -> bool:
        if time.monotonic() - self._looked > FRESH:
            self._alive = self._still_alive()
            self._looked = time.monotonic()
        if name in self._alive:
            return True
        if self._waits(name) or self._holder(name) is not None:
            self._alive.add(name)
        return name in self._alive

    def _still_alive(self) -> set[str]:
        """Which of the runs that were alive are it for sure; of the others nothing is said."""
        waiting = self._alive.intersection(self.table.entries(WAITING)) if self._alive else set[str]()
        if waiting:
            queue(self.ray).come.remote()  # wherever it has gone to
        holders = {name: self.table.get(name, "holder") for name in self._alive - waiting}
        names = {name: (holder or name.encode()).decode() for name, holder in holders.items() if holder != LEFT}
        there = actors_of(self.ray) if names else set[str]()
        return waiting | {name for name, actor in names.items() if actor in there}

    def stop(self, name: str, run: int) -> None:
        """One that has not begun is taken out of the queue."""
        self.table.put(name, "stop", b"1")
        waits, actor = self._waits(name), self._holder(name)
        if self.table.get(name, "holder") is None and (waits or actor is not None):
            waited = time.time() - order.since if (order := self._order(name)) is not None else 0.0
            self.table.put(name, "ended", stopped_before(run, waited).model_dump_json().encode(), overwrite=False)
            self.table.drop(WAITING, name)
            if self.table.get(name, "holder") is None and (actor := self._actor(name)) is not None:  # given in this moment, too
                self.ray.kill(actor)

    def _waits(self, name: str) -> bool:
        """Whether a run has not been given to Ray yet. To be asked before whether Ray has it."""
        return self.table.get(WAITING, name) is not None

    def look(self, name: str, sizes: dict[str, int]) -> dict[str, Any] | None:
        """Where the run is, and what its logs have beyond these sizes; None where it is not there."""
        if self.table.get(name, "holder") is None:
            return self._queued(name)
        if (actor := self._holder(name)) is None:
            return None
        return self.ray.get(actor.look.remote(name, sizes), timeout=LOOK)

    def _queued(self, name: str) -> dict[str, Any] | None:
        """What is to be said of a run that has not begun."""
        if (order := self._order(name)) is None:
            return None
        note = ""
        if place(order.wanted, self.nodes()) is None:
            wanted = ", ".join(f"{count:g} {KINDS.get(kind, kind)}" for kind, count in order.wanted.items())
            note = f"no node of the cluster has {wanted} (status shows what there is): it waits until one joins, or is stopped"
        return {"progress": Progress(elapsed=time.time() - order.since, note=note).model_dump_json(), "logs": {}}

    def _order(self, name: str) -> Order | None:
        content = self.table.get(name, "order")
        return None if content is None else Order.unpickled(content)

    def collect(self, name: str, run: int) -> bytes:
        """The result of a run that is not alive: if there is none yet, that it is lost, for good."""
        if (kept := self.table.get(name, "ended")) is not None:
            self.table.drop(name, "order")
            return kept
        begun = self.table.get(name, "holder") is not None
        reason = "its node of the cluster, or what held it there, was lost before there was a result"
        if not begun and self.table.get(name, "order") is None:
            reason = "its order did not reach the cluster: the connection broke before"
        with suppress(Exception):  # it is the reason alone that is missing then
            if why := self.ray.get(queue(self.ray).why.remote(name), timeout=2 * LOOK):
                reason += f": {why}"
        lost = RunEnded(run=run, outcome="crash", failure="lost", seconds={} if begun else NEVER, excerpt=reason)
        self.table.put(name, "ended", lost.model_dump_json().encode(), overwrite=False)
        self.table.put(name, "holder", LEFT)  # for good: whoever is still to take it comes too late
        self.table.drop(name, "order")
        return self.table.get(name, "ended") or b""

    def finish(self, name: str) -> dict[str, Kept]:
        """The logs of a run that is not alive; then only what `collect` needs stays behind."""
        logs = json.loads(self.table.get(name, "logs") or b"{}")
        self.table.drop(name, "logs", "stop")
        return {log: (unpacked(content), cut) for log, (content, cut) in logs.items() if log in LOGS}

    def capacity(self, wants: Wants) -> int:
        return wants.capacity(self.nodes())

    def in_use(self) -> list[Use]:
        waiting: dict[str, int] = {}
        names = {name for name in actors_of(self.ray) if name.startswith(RUN) and self.table.get(name, "holder") is None}
        for name in names | set(self.table.entries(WAITING)):
            order = self._order(name)
            for kind in order.wanted if order else ():
                waiting[kind] = waiting.get(kind, 0) + 1
        return uses(self.used(), waiting)

    def used(self) -> dict[str, tuple[float, float]]:
        """How much is used and there of each of the cluster's resources. What is kept for a run to come is not used."""
        there, free = self.ray.cluster_resources(), self.ray.available_resources()
        with suppress(Exception):
            if NAME in actors_of(self.ray):
                for kept in self.ray.get(queue(self.ray).kept.remote(), timeout=LOOK):
                    for kind, count in kept.items():
                        free[kind] = free.get(kind, 0.0) + count
        return {kind: (max(0.0, count - free.get(kind, 0.0)), count) for kind, count in there.items()}

    def _holder(self, name: str) -> Any:
        """The actor that holds a run, placed or waiting for room; None where there is none, or none any more. One that has held
        another run before is found by the name of its first.
        """
        while True:
            holder = self.table.get(name, "holder")
            if holder == LEFT:
                return None
            actor = self._actor(name if holder is None else holder.decode())
            if actor is not None or self.table.get(name, "holder") == holder:
                return actor  # else another has taken it over in this very moment

    def _actor(self, name: str) -> Any:
        if name not in actors_of(self.ray):  # asked first, for get_actor answers from memory though the head has forgotten all
            return None
        try:
            return self.ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:  # Ray's word for that
            return None

    def holds(self, job: str) -> bool:
        """Whether a job that is on is this cluster's."""
        return any(actor["name"].endswith(job) for actor in self.ray.util.list_named_actors(all_namespaces=True))

    def nodes(self) -> list[dict[str, float]]:
        """What each living node offers."""
        return nodes_of(self.ray)
