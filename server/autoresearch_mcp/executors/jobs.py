"""A Ray cluster that takes jobs over HTTP and nothing else, from a machine that is no part of it: what a laptop has of a cluster.

A run is a job that starts the run's actor from inside, follows it, and tells in its own log what there is to know (relay.py). The
job may end, or be ended, before the run: then another is sent that follows on, for as long as the run may be there. Only what a
job has told of its result counts.
"""

import importlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors.relay import MARK, ORDER
from autoresearch_mcp.executors.table import Order, Wants, unpacked, uses
from autoresearch_mcp.record.events import NEVER, RunEnded
from autoresearch_mcp.run.slots import Use

RELAY = "python -P -m autoresearch_mcp.executors.relay"
SILENT = 3  # jobs in a row that could not even begin, after which nothing can have begun
PAUSE, AT_MOST = 5.0, 300.0  # seconds between one follower's end and the next, twice as long each time
FRESH = 0.5  # seconds that what a job has told is not asked for again
CENSUS = 60.0  # seconds that the cluster's nodes are known for
COUNTED = 15.0  # seconds that a job may take to count them
OVER = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass
class Told:
    """What a job has told so far."""

    here: bool = False
    progress: str = ""
    logs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    ends: dict[str, tuple[bytes, bool]] = field(default_factory=dict[str, tuple[bytes, bool]])
    ended: str = ""
    nodes: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    used: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    @classmethod
    def of(cls, log: str) -> "Told":
        told = cls()
        for line in log.splitlines():
            if line.startswith(MARK):
                with suppress(ValueError):  # a job that was killed leaves half a line
                    told._hear(json.loads(line.removeprefix(MARK)))
        return told

    def _hear(self, said: dict[str, Any]) -> None:
        self.here = True
        self.progress = said.get("progress", self.progress)
        self.ended = said.get("ended", self.ended)
        self.nodes, self.used = said.get("nodes", self.nodes), said.get("used", self.used)
        for name, more in said.get("logs", {}).items():
            self.logs[name] = self.logs.get(name, b"") + unpacked(more)
        for name, (content, cut) in said.get("ends", {}).items():
            self.ends[name] = (unpacked(content), cut)


@dataclass
class Following:
    """The jobs of one run."""

    number: int = 1
    """Of the latest."""
    told: Told = field(default_factory=Told)
    asked: float = 0.0
    """When it was last asked what it has told."""
    silent: int = 0
    """How many have ended that could not even begin."""
    pause: float = field(default_factory=lambda: PAUSE)
    next: float = 0.0
    """When another may be sent."""


class Jobs:
    """Answers as Cluster does. Raises what Ray does where the cluster cannot be reached."""

    def __init__(self, address: str):
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # either would count more than the address
            os.environ.pop(name, None)
        self._client: Any = importlib.import_module("ray.job_submission").JobSubmissionClient(address)
        self._runs: dict[str, Following] = {}
        self._orders: dict[str, Order] = {}
        """Of runs of which no job has told anything yet: a cluster that is starting up refuses some."""
        self._census: tuple[float, Told] | None = None

    def start(self, order: Order) -> None:
        self._orders[order.name] = order
        self._submit(order, order.name)

    def _submit(self, order: Order, job: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ORDER).write_bytes(order.pickled())
            environment: dict[str, Any] = {"working_dir": folder}
            if order.folder is not None:
                environment["py_modules"] = [str(order.folder)]  # sent once, by its content; the job finds it on its path
            self._client.submit_job(entrypoint=f"{RELAY} {ORDER}", submission_id=job, runtime_env=environment)

    def is_alive(self, name: str, run: int) -> bool:
        following, job = self._of(name)
        if job is None:
            return False  # it never arrived
        told = self._told(name)
        if told.ended:
            return False
        if self._client.get_job_status(job) not in OVER:
            return True
        following.asked = 0.0
        told = self._told(name)  # the end may have been told meanwhile
        if told.ended:
            return False
        return self._follow(name, run, following, told)

    def stop(self, name: str, run: int) -> None:
        """By a job of its own, that need not be able to reach the first."""
        self._client.submit_job(entrypoint=f"{RELAY} --stop {name} {run}", submission_id=f"{name}-stop-{time.time_ns()}")

    def look(self, name: str, sizes: Mapping[str, int]) -> dict[str, Any] | None:
        told = self._told(name)
        logs = {log: content[sizes.get(log, 0) :] for log, content in told.logs.items()}
        return {"progress": told.progress, "logs": {log: more for log, more in logs.items() if more}} if told.progress else None

    def collect(self, name: str, run: int) -> bytes:
        following, job = self._of(name)
        if ended := self._told(name).ended:
            following.told = Told(ended=ended)
            return ended.encode()
        printed = "" if job is None else f"\n{self._client.get_job_logs(job)[-2000:]}"
        reason = f"no job of it could begin; the cluster's nodes need this package, and its python on the PATH of Ray:{printed}"
        return RunEnded(run=run, outcome="crash", failure="lost", seconds=NEVER, excerpt=reason).model_dump_json().encode()

    def finish(self, name: str) -> dict[str, tuple[bytes, bool]]:
        return self._told(name).ends

    def capacity(self, wants: Wants) -> int:
        return wants.capacity(self._counted().nodes)

    def in_use(self) -> list[Use]:
        return uses(self._counted().used, {})

    def _counted(self) -> Told:
        """What the cluster has: counted by a job, for only inside is that known."""
        if self._census is None or time.monotonic() - self._census[0] > CENSUS:
            job = self._client.submit_job(entrypoint=f"{RELAY} --nodes", submission_id=f"nodes-{time.time_ns()}")
            until = time.monotonic() + COUNTED
            while self._client.get_job_status(job) not in OVER:
                if time.monotonic() > until:
                    raise TimeoutError(f"the job {job} has not counted the cluster's nodes in {COUNTED:.0f} s")
                time.sleep(FRESH)
            log = self._client.get_job_logs(job)
            self._census = (time.monotonic(), Told.of(log))
            if not self._census[1].here:
                raise RuntimeError(f"a job cannot begin there: {log[-500:]}")
        return self._census[1]

    def _told(self, name: str) -> Told:
        following, job = self._of(name)
        now = time.monotonic()
        if job is not None and not following.told.ended and now - following.asked > FRESH:
            following.told, following.asked = Told.of(self._client.get_job_logs(job)), now
            if following.told.here:
                self._orders.pop(name, None)
        return following.told

    def _of(self, name: str) -> tuple[Following, str | None]:
        """A run's jobs and the latest of them; None where there is none."""
        if (following := self._runs.get(name)) is None:
            if not self._exists(name):
                return Following(), None
            following = self._runs[name] = Following()
            while self._exists(_job(name, following.number + 1)):
                following.number += 1
        return following, _job(name, following.number)

    def _exists(self, job: str) -> bool:
        try:
            self._client.get_job_status(job)
        except RuntimeError as error:
            if "does not exist" in str(error):
                return False
            raise
        return True

    def _follow(self, name: str, run: int, following: Following, told: Told) -> bool:
        """Sends another job that follows a run whose last has ended. False where none could ever begin: then the run has not."""
        now = time.monotonic()
        if following.next == 0.0:
            following.silent = 0 if told.here else following.silent + 1
            following.next = now + following.pause
            following.pause = min(AT_MOST, 2 * following.pause)
        if following.silent >= SILENT and following.number == following.silent:
            return False
        if now >= following.next:
            following.number += 1
            job = _job(name, following.number)
            if (order := self._orders.get(name)) is not None:
                self._submit(order, job)
            else:
                self._client.submit_job(entrypoint=f"{RELAY} --follow {name} {run}", submission_id=job)
            following.next, following.asked = 0.0, 0.0
        return True


def _job(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-again-{number}"
