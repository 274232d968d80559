"""Runs on a node of a Ray cluster: the actor that sees to them there.

On its node a run has the host that it would have on one machine: the strongest sandbox of that node, its clock, its slots, its
scoring. The host records nothing itself. This actor carries the result into the cluster's table, and only then does the run hear
its score. Where the actor dies, its host ends the run.

When the host has ended, the room that the actor has of Ray is kept if the run whose turn it is wants just that: then it goes on
with that run, and a process less is started. Where none waits it stays a while, for an agent that thinks, or a verdict that wants
another run. Else it ends, and whoever uses the cluster too may have the room.
"""

import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.executors import carrying
from autoresearch_mcp.executors.local import NURSERY, LocalExecutor
from autoresearch_mcp.executors.table import (
    KINDS,
    LEFT,
    NAMESPACE,
    NO_SLOTS,
    STAY,
    WAITING,
    Order,
    Table,
    packed,
    stopped_before,
)
from autoresearch_mcp.files import try_lock
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run import outputs, places, slots
from autoresearch_mcp.run.hardware import granted
from autoresearch_mcp.run.levels import REGISTRY
from autoresearch_mcp.run.progress import Progress
from autoresearch_mcp.run.sandbox import OVERRIDE, detect
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import torch_version

LOGS = ("output.log", "scoring.log", "called.log", "checks.log", "compile.log", "host.log")
BLOCK = 1 << 18  # bytes of a log that travel at once
KEPT = 1 << 20  # bytes of each log's end that are kept for who comes later
POLL, SOON, ASK = 0.1, 0.02, 1.0  # seconds between looks at the host, at one that has its result, and at whether the run shall stop
ENDING, LEAVING = 120.0, 5.0  # seconds that a host has to end its run, and Ray to end this process
STAYS = 300.0  # seconds after which an actor ends with its run, though others wait: others than we may want its room
TURN, RENEW = 10.0, 5.0  # seconds that the queue has to say which run is next, and until it is asked again
STAYS_IDLE, SETTING = 30.0, "AUTORESEARCH_RAY_IDLE"  # seconds that one without a run stays, and the variable that says so otherwise
KIND = "ray"  # how the names of its folders begin


def versions() -> dict[str, str]:
    """Of what must be the same where a run is given and where it is made: builds for other hardware of one version may differ."""
    found = {"autoresearch-mcp": __version__, "torch": torch_version().partition("+")[0]}
    found["Python"] = ".".join(platform.python_version_tuple()[:2])
    return {name: version for name, version in found.items() if version}


def idle_seconds() -> float:
    """For how long an actor without a run stays, on this node."""
    try:
        return float(os.environ.get(SETTING, STAYS_IDLE))
    except ValueError:
        return STAYS_IDLE


class Remote:
    """The actor."""

    def __init__(self, name: str, queue: Any):
        import ray

        self._ray: Any = ray
        self._node = ray.get_runtime_context().get_node_id()
        self._own, self._queue, self._table = name, queue, Table()
        self._executor = LocalExecutor()
        NURSERY.many = True
        self._name = name
        """Of the run that is on; the actor has that of its first."""
        self._spec: RunSpec | None = None
        self._called, self._swept = threading.Event(), False
        self._offers: dict[str, float] = {}
        self._room: dict[str, float] = {}
        """What Ray was asked for this actor."""
        threading.Thread(target=self._stay, daemon=True).start()

    def look(self, name: str, sizes: dict[str, int]) -> dict[str, Any]:
        """Where a run is, and what its logs have beyond these sizes."""
        if (spec := self._spec) is None or name != self._name:
            return {"progress": Progress().model_dump_json(), "logs": {}}
        logs = {name: more for name, size in sizes.items() if name in LOGS and (more := _read(spec.folder / name, size, BLOCK))}
        return {"progress": self._executor.progress(spec).model_dump_json(), "logs": logs}

    def called(self) -> None:
        """The queue has something to say."""
        self._called.set()

    def _stay(self) -> None:
        """From the first run to the end of this process, whatever happens."""
        until = time.monotonic() + STAYS
        name: str | None = self._own
        try:
            while name is not None and self._hold(name):
                name = self._next(until) if time.monotonic() < until else None
        finally:
            with suppress(Exception):
                self._ray.kill(self._ray.get_actor(self._own, namespace=NAMESPACE))
                time.sleep(LEAVING)
            os._exit(0)

    def _next(self, until: float) -> str | None:
        """The run in turn, if it wants just the room that is held here; where none waits, the next that does, in a while."""
        until = min(until, time.monotonic() + idle_seconds())
        with suppress(Exception):  # the queue is away: it gives Ray what waits when it is back
            while True:
                self._called.clear()
                stays = time.monotonic() < until
                told = self._ray.get(self._queue.take.remote(self._own, self._node, self._room, stays), timeout=TURN)
                if told != STAY:
                    return told
                self._called.wait(min(RENEW, max(0.0, until - time.monotonic())))
        return None

    def _hold(self, name: str) -> bool:
        """From beginning to end of a run; whether another may follow."""
        self._spec, self._name = None, name
        self._again(lambda: self._table.put(name, "holder", self._own.encode(), overwrite=False))
        ours = self._again(lambda: self._table.get(name, "holder")) == self._own.encode()
        self._again(lambda: self._table.drop(WAITING, name))
        if not ours:
            return name != self._own
        if name != self._own:  # it may have an actor of its own, which waits for room
            with suppress(Exception):
                self._ray.kill(self._ray.get_actor(name, namespace=NAMESPACE))
        sound = name != self._own  # of the first run it is not even known what it wants
        if self._again(lambda: self._table.get(name, "ended")) is None:  # else it was stopped in the queue
            order = Order.unpickled(self._again(lambda: self._table.get(name, "order")))
            self._room = order.wanted
            try:
                if self._again(lambda: self._table.get(name, "stop")) is None:
                    sound = self._run(order)
                else:
                    self._carry(stopped_before(order.run))
            except Exception as error:
                sound = False
                told = str(error) if isinstance(error, AutoresearchError | OSError) else traceback.format_exc(limit=-3)
                self._carry(self._failed(order, "crash", "lost", f"it could not be run on {platform.node()}: {told}"))
        self._again(lambda: self._table.put(name, "holder", LEFT))
        return sound

    def _run(self, order: Order) -> bool:
        """Whether the run came to an end of its own, and nothing of it is left here: else the next may fail of this node too."""
        given, ours = RunSpec.model_validate_json(order.spec), versions()
        if other := [name for name, version in order.versions.items() if ours.get(name, version) != version]:
            there, wanted = (", ".join(f"{name} {of[name]}" for name in other) for of in (ours, order.versions))
            reason = f"the node {platform.node()} has {there}, the server {wanted}: install the same on both"
            self._carry(self._failed(order, "refused", "refused", reason))
            return False
        level = detect().level
        if level == "none" and os.environ.get(OVERRIDE) != "none":
            reason = (
                f"the node {platform.node()} can confine no run, which could then reach Ray itself: {REGISTRY[level].advice}; or "
                f"start Ray there with {OVERRIDE}=none in its environment, if every run is to be trusted"
            )
            self._carry(self._failed(order, "refused", "refused", reason))
            return False
        if not self._swept:  # once: it asks after every run of the node
            self._executor.sweep(KIND)
            self._swept = True
        offered = self._offered()
        own = {name: int(count) for name, count in offered.items() if name not in KINDS and not name.startswith(NO_SLOTS)}
        os.environ[slots.SETTING] = " ".join(f"{name}={count}" for name, count in own.items())
        folder = places.root() / f"{KIND}-{given.token}"
        carrier = folder.with_suffix(".carrier")
        lock = try_lock(carrier)
        assert lock is not None, "a run is on one node, once"
        try:
            data = None
            if order.data is not None:
                held = carrying.library(self._ray, order.data)
                if (data := carrying.fetch(self._ray, held, order.data, self._stopped)) is None:
                    self._carry(stopped_before(order.run))
                    return False
            here = {"folder": folder, "place": None, "ledger": None, "carrier": carrier, "data": data, "enforcement": level}
            run = given.task.run.model_copy(update={"cpus": self._cores(given, order, offered)})
            spec = given.model_copy(update=here | {"task": given.task.model_copy(update={"run": run})})
            self._executor.start(spec, order.files)
            self._spec = spec
            ended = self._attend(spec, order)
        finally:
            os.close(lock)  # a host that is still there ends its run now
            cleared = self._clear(folder)
            carrier.unlink(missing_ok=True)
        begun = ended.outcome == "scored" or "training" in ended.seconds
        return begun and ended.failure not in ("lost", "refused") and cleared

    def _cores(self, given: RunSpec, order: Order, offered: dict[str, float]) -> int | None:
        """Physical cores of this node that a run is held to: as large a share as it has of Ray's, which is what others leave it."""
        asked, run = order.wanted.get("CPU", 0.0), given.task.run
        if run.cpus is not None or not asked or order.wanted.get("GPU"):
            return run.cpus
        all_of_it = granted().threads
        share = max(1, round(all_of_it * asked / offered.get("CPU", asked)))
        return None if share >= all_of_it else share

    def _clear(self, folder: Path) -> bool:
        """Removes what is left of the run, unless processes of it could not be ended: then the next run here tries again."""
        deadline = time.monotonic() + ENDING
        while self._spec is not None and self._executor.is_alive(self._spec) and time.monotonic() < deadline:
            time.sleep(SOON)
        if self._spec is not None and (self._executor.is_alive(self._spec) or self._executor.end_strays(self._spec)):
            return False
        outputs.remove(folder)
        return True

    def _attend(self, spec: RunSpec, order: Order) -> RunEnded:
        """Until the host has ended; its result is carried on as soon as it is there."""
        result: RunEnded | None = None
        asked = time.monotonic()
        while self._executor.is_alive(spec):
            if result is None and (result := self._executor.collect(spec)) is not None:
                self._carry(result)
                with suppress(OSError):  # else the run never hears its score, and is ended when it takes too long
                    spec.carried.touch()
            if time.monotonic() - asked > ASK:
                asked = time.monotonic()
                if self._stopped():
                    with suppress(AutoresearchError):  # a full disk: asked again
                        self._executor.stop(spec)
            time.sleep(POLL if result is None else SOON)
        self._executor.clean_up(spec)
        if result is None:
            lost = "the run's supervisor died before it recorded a result (killed, or out of memory)"
            result = self._executor.collect(spec) or self._failed(order, "crash", "lost", lost)
            self._carry(result)
        ends = {name: _end(spec.folder / name) for name in LOGS}
        kept = {name: (packed(content), cut) for name, (content, cut) in ends.items() if content}
        self._again(lambda: self._table.put(self._name, "logs", json.dumps(kept).encode()))
        return result

    def _carry(self, ended: RunEnded) -> None:
        """Into the cluster's table, where the first result counts."""
        self._again(lambda: self._table.put(self._name, "ended", ended.model_dump_json().encode(), overwrite=False))

    def _again(self, ask: Callable[[], Any]) -> Any:
        """What the cluster's table answers, asked until it does: a head that is away comes back, or Ray ends this process."""
        while True:
            try:
                return ask()
            except Exception as error:
                print(f"{self._name}: the cluster's table does not answer: {error}", file=sys.stderr)
            time.sleep(ASK)

    def _stopped(self) -> bool:
        """Whether somebody asks for the run's end; no while nobody can be heard."""
        with suppress(Exception):
            return self._table.get(self._name, "stop") is not None
        return False

    def _offered(self) -> dict[str, float]:
        """What this node has, as Ray counts it; asked until Ray says."""
        if not self._offers:
            nodes: dict[str, dict[str, float]] = {node["NodeID"]: node["Resources"] for node in self._ray.nodes()}
            self._offers = nodes.get(self._node, {})
        return self._offers

    def _failed(self, order: Order, outcome: Any, failure: str, reason: str) -> RunEnded:
        """Of a run without a host: it has not begun, and seen nothing."""
        seconds, enforcement = ({}, self._spec.enforcement) if self._spec else (NEVER, "none")
        return RunEnded(run=order.run, outcome=outcome, failure=failure, seconds=seconds, enforcement=enforcement, excerpt=reason)


def _read(path: Path, start: int, most: int) -> bytes:
    with suppress(OSError), open(path, "rb") as log:
        log.seek(start)
        return log.read(most)
    return b""


def _end(path: Path) -> tuple[bytes, bool]:
    """The end of a log, and whether anything before it is left out."""
    with suppress(OSError):
        cut = max(0, path.stat().st_size - KEPT)
        return _read(path, cut, KEPT), cut > 0
    return b"", False
