"""A Ray cluster that takes jobs over HTTP and nothing else, from a machine that is no part of it: what a laptop has of a cluster.

A run is a job that starts the run's actor from inside, follows it, and tells in its own log what there is to know (relay.py). The
job may end, or be ended, before the run: then another is sent that follows on.
"""

import importlib
import json
import os
import pickle
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch_mcp.executors.relay import MARK, ORDER
from autoresearch_mcp.executors.table import Order, Wants, uses
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run.slots import Use

RELAY = "python -P -m autoresearch_mcp.executors.relay"
FOLLOWERS = 4  # jobs for one run, if each ends before it
FRESH = 0.5  # seconds that what a job has told is not asked for again
OVER = ("STOPPED", "SUCCEEDED", "FAILED")
STATUS = "/api/cluster_status"
ANSWER = 10.0  # seconds


@dataclass
class Told:
    """What the job of a run has told so far."""

    begun: bool = False
    progress: str = ""
    logs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    ended: str = ""

    def hear(self, line: str) -> None:
        said = json.loads(line)
        self.begun = self.begun or said.get("progress") is not None
        self.progress = said.get("progress") or self.progress
        self.ended = said.get("ended", "")
        for name, more in said.get("logs", {}).items():
            self.logs[name] = self.logs.get(name, b"") + more.encode("utf-8", errors="surrogateescape")


class Jobs:
    """Answers as Cluster does. Raises what Ray does where the cluster cannot be reached."""

    def __init__(self, address: str):
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # either would count more than the address
            os.environ.pop(name, None)
        self._address = address.rstrip("/")
        self._client: Any = importlib.import_module("ray.job_submission").JobSubmissionClient(address)
        self._heard: dict[str, tuple[float, Told]] = {}

    def start(self, order: Order) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ORDER).write_bytes(pickle.dumps(order))
            environment: dict[str, Any] = {"working_dir": folder}
            if order.folder is not None:
                environment["py_modules"] = [str(order.folder)]  # sent once, by its content; a job finds it on its path
            self._client.submit_job(entrypoint=f"{RELAY} {ORDER}", submission_id=order.name, runtime_env=environment)

    def is_alive(self, name: str, run: int) -> bool:
        if self._told(name).ended:
            return False
        job = self._job(name)
        if job is None:
            return False  # it never arrived
        if self._client.get_job_status(job) not in OVER:
            return True
        self._heard.pop(name, None)  # it may have told the end meanwhile
        return not self._told(name).ended and self._follow(name, run)

    def stop(self, name: str, run: int) -> None:
        """By a job of its own, that need not be able to reach the first."""
        self._client.submit_job(entrypoint=f"{RELAY} --stop {name} {run}", submission_id=f"{name}-stop-{time.time_ns()}")

    def look(self, name: str, sizes: Mapping[str, int]) -> dict[str, Any] | None:
        told = self._told(name)
        logs = {log: content[sizes.get(log, 0) :] for log, content in told.logs.items()}
        return {"progress": told.progress, "logs": {log: more for log, more in logs.items() if more}} if told.begun else None

    def collect(self, name: str, run: int) -> bytes:
        if ended := self._told(name).ended:
            return ended.encode()
        reason = f"its job told no result before it ended:\n{self._log(name)[-2000:]}"
        return RunEnded(run=run, outcome="crash", failure="lost", excerpt=reason).model_dump_json().encode()

    def finish(self, name: str) -> dict[str, bytes]:
        return self._told(name).logs

    def capacity(self, wants: Wants) -> int:
        return wants.capacity([{kind: there for kind, (_, there) in self._resources().items()}])

    def in_use(self) -> list[Use]:
        return uses(self._resources(), {})

    def _resources(self) -> dict[str, tuple[float, float]]:
        """How much is used and there of what the cluster has."""
        with urllib.request.urlopen(self._address + STATUS, timeout=ANSWER) as answer:
            report = json.load(answer)["data"]["clusterStatus"]["loadMetricsReport"]
        return {kind: (float(used), float(there)) for kind, (used, there) in report["usage"].items()}

    def _told(self, name: str) -> Told:
        now = time.monotonic()
        when, told = self._heard.get(name, (0.0, Told()))
        if now - when > FRESH and not told.ended:
            told = Told()
            for line in self._log(name).splitlines():
                if line.startswith(MARK):
                    told.hear(line.removeprefix(MARK))
            self._heard[name] = (now, told)
        return told

    def _log(self, name: str) -> str:
        job = self._job(name)
        return "" if job is None else self._client.get_job_logs(job)

    def _job(self, name: str) -> str | None:
        """The latest that follows a run."""
        return max(self._followers(name), key=lambda job: (len(job), job), default=None)

    def _followers(self, name: str) -> list[str]:
        ids = [job.submission_id for job in self._client.list_jobs()]
        return [job for job in ids if job == name or (job or "").startswith(f"{name}-again-")]

    def _follow(self, name: str, run: int) -> bool:
        """Sends another job that follows a run; False where enough were sent."""
        number = len(self._followers(name)) + 1
        if number > FOLLOWERS:
            return False
        print(f"{name}: follower {number}", file=sys.stderr)
        self._client.submit_job(entrypoint=f"{RELAY} --follow {name} {run}", submission_id=f"{name}-again-{number}")
        return True
