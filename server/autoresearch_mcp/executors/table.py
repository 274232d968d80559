"""What of a run is kept in a Ray cluster, and under which names: what was ordered, and the table of what has become of it.

The cluster's table is a part of its head. In it, under a run's name: its order, who holds it, that it shall stop, its result, its
logs; and, while it waits for room, its ticket. The first result that is written there is the run's, whoever writes another, and the
first actor that is written there holds it.
"""

import base64
import importlib
import json
import math
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch_mcp import __version__
from autoresearch_mcp.executors.carrying import Manifest
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run.slots import Use

NAMESPACE = "autoresearch"
RUN = "run-"  # how the names of runs begin
AGREED = f"{__version__}-3"  # what those who share a queue agree on; another number where what is kept in the table is another
WAITING = f"waiting-{AGREED}"  # under this name the table has an entry for each run that waits for room
STAY = ""  # is told instead of a run's name to an actor for which there is none yet
LEFT = b"-"  # is noted as the holder of a run that nobody holds any more
LITTLE = 1e-4  # what Ray counts resources by
KINDS = {"CPU": "core", "GPU": "gpu"}
"""What we call what Ray names otherwise."""
NO_SLOTS = ("node:", "accelerator_type:", "memory", "object_store_memory", "bundle_group")
"""How the names of Ray's resources begin that no task asks for."""


@dataclass(frozen=True)
class Wants:
    """What a task says of its runs' slot."""

    gpus: int
    on_gpu: bool | None
    """None: if the cluster has any."""
    cpus: int | None
    """None: all of a node."""
    resources: dict[str, int] = field(default_factory=dict[str, int])

    def of(self, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The same as Ray is asked for it, by what its nodes offer; all of a node is all of the smallest."""
        on_gpu = any(there.get("GPU", 0) for there in nodes) if self.on_gpu is None else self.on_gpu
        cpus = self.cpus
        if cpus is None:
            cpus = 0 if on_gpu else min((int(there["CPU"]) for there in nodes if there.get("CPU", 0) >= 1), default=1)
        wanted = {"CPU": cpus, "GPU": self.gpus if on_gpu else 0, **self.resources}
        return {name: float(count) for name, count in wanted.items() if count}

    def capacity(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many have room at once, on all nodes together, if nobody else is there."""
        wanted = self.of(nodes)
        if not wanted:
            return sum(int(there.get("CPU", 1)) for there in nodes)
        return sum(min(math.floor(there.get(name, 0.0) / count) for name, count in wanted.items()) for there in nodes)


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What is asked of a run to tell when its turn is."""

    run: int
    line: str = ""
    """The session that it belongs to."""
    since: float = 0.0
    """When the cluster was given it."""
    wanted: dict[str, float] = field(default_factory=dict[str, float])
    """What Ray is asked for it."""

    def written(self) -> bytes:
        return json.dumps({"run": self.run, "line": self.line, "since": self.since, "wanted": self.wanted}).encode()

    @classmethod
    def read(cls, content: bytes) -> "Ticket":
        """Raises ValueError, TypeError."""
        return Ticket(**json.loads(content))


@dataclass(frozen=True, kw_only=True)
class Order(Ticket):
    """A run as it is given to a cluster."""

    name: str
    spec: str
    """JSON of the RunSpec."""
    files: dict[str, bytes]
    versions: dict[str, str]
    """Of the packages that its node must have as well."""
    wants: Wants
    data: Manifest | None = None
    folder: Path | None = None
    """Of the data, here."""

    def pickled(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def unpickled(cls, content: bytes) -> "Order":
        order: Order = pickle.loads(content)
        return order


class Table:
    """The cluster's table, by the name of a run and of an entry."""

    def __init__(self) -> None:
        self._table = importlib.import_module("ray.experimental.internal_kv")

    def get(self, name: str, entry: str) -> bytes | None:
        return self._table._internal_kv_get(f"{name}:{entry}".encode(), namespace=NAMESPACE.encode())

    def entries(self, name: str) -> list[str]:
        """All that there is under a name."""
        prefix = f"{name}:"
        keys = self._table._internal_kv_list(prefix.encode(), namespace=NAMESPACE.encode())
        return [key.decode().removeprefix(prefix) for key in keys]

    def put(self, name: str, entry: str, value: bytes, overwrite: bool = True) -> None:
        self._table._internal_kv_put(f"{name}:{entry}".encode(), value, overwrite=overwrite, namespace=NAMESPACE.encode())

    def drop(self, name: str, *entries: str) -> None:
        for entry in entries:
            self._table._internal_kv_del(f"{name}:{entry}".encode(), namespace=NAMESPACE.encode())


def packed(content: bytes) -> str:
    """A piece of a log as text."""
    return base64.b64encode(zlib.compress(content)).decode()


def unpacked(content: str) -> bytes:
    return zlib.decompress(base64.b64decode(content))


def never_begun(run: int, reason: str) -> RunEnded:
    """The result of a run that its cluster does not take."""
    return RunEnded(run=run, outcome="refused", failure="refused", seconds=NEVER, excerpt=reason)


def stopped_before(run: int, waited: float = 0.0) -> RunEnded:
    """The result of a run that was stopped before it began."""
    reason = "the run was stopped on request, before it began"
    return RunEnded(run=run, outcome="crash", failure="killed", stopped=True, seconds={"queued": waited}, excerpt=reason)


def place(wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int | None:
    """The first node that has room for a run."""
    for index, node in enumerate(nodes):
        if all(node.get(kind, 0.0) > count - LITTLE for kind, count in wanted.items()):
            return index
    return None


def nodes_of(ray: Any) -> list[dict[str, float]]:
    """What each living node of a cluster offers."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def actors_of(ray: Any) -> set[str]:
    """The names of all actors of ours that a cluster has."""
    there = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in there if actor["namespace"] == NAMESPACE}


def uses(resources: Mapping[str, tuple[float, float]], waiting: Mapping[str, int]) -> list[Use]:
    """What is in use of a cluster's resources, from how much of each is used and there, and how many wait for it."""
    return [
        Use(KINDS.get(kind, kind), math.floor(there), math.ceil(used), waiting.get(kind, 0))
        for kind, (used, there) in sorted(resources.items())
        if not kind.startswith(NO_SLOTS)
    ]
