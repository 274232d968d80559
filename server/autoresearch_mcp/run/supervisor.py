"""The process that owns one run from its start to its recorded result. It is detached: server and client may both die.

    python -m autoresearch_mcp.run.supervisor FOLDER

It takes a slot, starts the run in the sandbox, keeps the clock, hands over data, has the result scored, ends every process
of the run, and writes one event to the ledger before it frees the slot.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import UNIXSocketStream

from autoresearch_mcp.errors import LedgerError, RunFailedError
from autoresearch_mcp.evaluate.command import Score
from autoresearch_mcp.files import read_regular, write_json
from autoresearch_mcp.record.ledger import Ledger, RunEnded, write_results
from autoresearch_mcp.run import limits, sandbox
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.clock import Clock
from autoresearch_mcp.run.scoring import Scoring
from autoresearch_mcp.run.slots import take_slot
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.task import expand
from autoresearch_mcp.text import short_tracebacks, tail

POLL = 0.02  # seconds between looks at the process and the clock
REPORT = 0.25  # seconds between progress reports and looks at what the run uses
GOODBYE = 10.0  # seconds a run has after its score to print its summary
MESSAGE_BYTES = 1 << 20
EXCERPT = 1600  # characters of a failed run's output that go into its row
TRAINED = "trained.json"  # for the scoring command: what the run said of its result when training ended


class Supervisor:
    def __init__(self, spec: RunSpec):
        self.spec = spec
        self.task = spec.task
        self.clock = Clock(spec.task.run)
        self.log = limits.BoundedLog(spec.log, spec.task.run.log_bytes)
        self.score: Score | None = None
        self.failed: RunFailedError | None = None
        self.answered = False
        self.terminated = False
        self.peak_memory_mb = 0.0
        self.slot = ""
        self._children: list[Child] = []
        self._scoring: Scoring | None = None

    async def supervise(self) -> RunEnded:
        """The whole run; never raises for what the run does."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._report)
            tasks.start_soon(self._listen_for_signals)
            taken = await take_slot(self.spec.slots, self.task.run, self._stop_asked)
            try:
                if taken is None:
                    raise RunFailedError("crash", "killed", "it was stopped while it waited for a slot")
                self.slot = taken[0]
                if reason := sandbox.refusal(self.task, self.spec.enforcement):
                    raise RunFailedError("refused", "refused", reason)
                await self._run()
            except* RunFailedError as group:
                self.failed = self.failed or next(_leaves(group))
            finally:
                self.clock.enter("done")
                await anyio.to_thread.run_sync(limits.end_descendants)
                self._reap()
                self.log.close()
            tasks.cancel_scope.cancel()
        return self._result()

    def _result(self) -> RunEnded:
        measured = {phase: round(seconds, 3) for phase, seconds in self.clock.seconds.items()}
        ended = RunEnded(
            run=self.spec.run,
            outcome="scored",
            seconds=measured,
            peak_memory_mb=round(self.peak_memory_mb, 1),
            enforcement=self.spec.enforcement,
        )
        if self.score is not None:
            scored = {"score": self.score.score, "holdout": self.score.holdout, "details": self.score.details}
            return ended.model_copy(update=scored)
        failed = self.failed or RunFailedError("crash", "error", "the run ended without a result")
        output = short_tracebacks(tail(self.spec.log, 6000, 90)).replace(f"{self.spec.work}/", "")[-EXCERPT:]
        excerpt = "\n".join(part for part in (failed.reason, output) if part)
        return ended.model_copy(update={"outcome": failed.outcome, "failure": failed.failure, "excerpt": excerpt})

    # --- the run ---

    async def _run(self) -> None:
        if self.task.run.command is None:
            await self._evaluate()
            return
        if self.task.metric.starts_early:
            self._scoring = self._start_scoring()
            if not self.task.data.train:  # else the clock waits with the data
                await self._scoring.ready()
        ours, theirs = socket.socketpair()
        with theirs:
            extra = {
                "AUTORESEARCH_PRESET": self.task.preset or "",
                "AUTORESEARCH_BUDGET": str(self.task.run.budget_seconds),
                "AUTORESEARCH_SEED": str(self.spec.seed),
                "AUTORESEARCH_SOCKET": str(theirs.fileno()),
                "AUTORESEARCH_DATA": str(self.spec.work / "data"),
            }
            command = expand(self.task.run.command, preset=self.task.preset or "", seed=str(self.spec.seed))
            child = Child(
                self._confined(command, self.spec.work),
                self.spec.work,
                self._environment(self.spec.work, **extra),
                self.log,
                [theirs.fileno()],
            )
        self._children.append(child)
        self.clock.enter("startup" if self.task.data.train else "training")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.pump)
            tasks.start_soon(self._serve, ours)
            await self._watch(child)
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(limits.end_descendants)
        child.drain()
        child.close()
        if self.score is None:
            if self.failed is None and child.returncode == 0:
                self._scoring = None  # it ended with the run's processes
                await self._evaluate()
            else:
                raise self.failed or self._classify(child.returncode)

    async def _watch(self, child: Child) -> None:
        """Until the process ends, its time is up, or somebody asks to stop."""
        scored_at: float | None = None
        while child.returncode is None:
            if self.answered:
                scored_at = scored_at or time.monotonic()
                if time.monotonic() - scored_at > GOODBYE:
                    return
            if self.failed is not None:
                return
            if await self._stop_asked():
                self.failed = RunFailedError("crash", "killed", "the run was stopped on request")
            elif self.clock.overdue and self.clock.phase != "evaluation":
                failure = "timeout_startup" if self.clock.phase == "startup" else "timeout"
                reason = {
                    "startup": f"it did not ask for data within {self.clock.limit:.0f} s (run.startup_seconds)",
                    "training": f"it did not finish within its budget and grace, {self.clock.limit:.0f} s",
                    "export": f"it did not submit its result within {self.clock.limit:.0f} s after training",
                }[self.clock.phase]
                self.failed = RunFailedError("timeout", failure, reason)
            await anyio.sleep(POLL)

    def _classify(self, returncode: int | None) -> RunFailedError:
        """Names a failure by the task's patterns on the end of the log."""
        text = tail(self.spec.log, 20000, 400)
        reason = f"it ended with exit status {returncode} and no result"
        for failure, pattern in self.task.failures.items():
            if re.search(pattern, text):
                return RunFailedError("timeout" if failure.startswith("timeout") else "crash", failure, reason)
        return RunFailedError("crash", "killed" if returncode == -signal.SIGKILL else "error", reason)

    # --- the control socket: everything on it comes from untrusted code ---

    async def _serve(self, ours: socket.socket) -> None:
        async with await UNIXSocketStream.from_socket(ours) as stream:
            try:
                async for message in _messages(stream):
                    await self._answer(stream, message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _answer(self, stream: UNIXSocketStream, message: object) -> None:
        match message:
            case {"op": "data"}:
                await self._hand_over(stream)
            case {"op": "trained"}:
                if self.clock.phase in ("startup", "training"):
                    self.clock.enter("export")
                    write_json(self.spec.scoring / TRAINED, message)
                await stream.send(b"{}\n")
            case {"op": "submit"} if self.score is None and self.failed is None:
                try:
                    await self._evaluate()
                except RunFailedError as failed:
                    self.failed = failed
                    await stream.send(_line(error=f"{failed.failure}: {failed.reason}"))
                    return
                assert self.score is not None
                await stream.send(_line(score=self.score.score))
                self.answered = True
            case _:
                await stream.send(_line(error="unknown or repeated request; a run submits once"))

    async def _hand_over(self, stream: UNIXSocketStream) -> None:
        """Passes the training data as read-only descriptors. The first time, the budget starts."""
        if self.spec.data is None or not self.task.data.train:
            await stream.send(_line(error="this task has no training data"))
            return
        if self.clock.phase not in ("startup", "training"):
            await stream.send(_line(error="training has ended; no more data is handed over"))
            return
        descriptors = await self._open_data(self.spec.data)
        if self._scoring is not None:
            await self._scoring.ready()
        try:
            if self.clock.phase == "startup":
                self.clock.enter("training")
            await stream.send_fds(_line(files=self.task.data.train, budget=self.task.run.budget_seconds), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _open_data(self, data: Path) -> list[int]:
        """Descriptors of the training files that nobody can turn into writable ones, as far as the level allows."""
        paths = [data / name for name in self.task.data.train]
        if self.spec.enforcement != "bubblewrap":
            return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        lend = Path(__file__).parent / "inside" / "lend.py"
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-I", "-S", str(lend), str(theirs.fileno()), *map(str, paths)]
            command = self._confined(command, self.spec.scoring, [lend, data])
            lender = partial(subprocess.run, command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, check=True, timeout=20)
            await anyio.to_thread.run_sync(lender)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, len(paths))
        return descriptors

    # --- scoring ---

    async def _evaluate(self) -> None:
        """Takes the outputs over and runs the scoring command on them. Raises RunFailedError."""
        self.clock.enter("evaluation")
        try:
            for name in self.task.run.outputs:
                await anyio.to_thread.run_sync(self._take_over, name)
        except OSError as error:
            raise RunFailedError(
                "crash", "error", f"the run left no usable {error.filename or 'output'}: {error.strerror or error}"
            ) from error
        scoring = self._scoring or self._start_scoring()
        self.score = await scoring.score(self._stop_asked)

    def _start_scoring(self) -> Scoring:
        values = {"data": str(self.spec.data or ""), "preset": self.task.preset or "", "seed": str(self.spec.seed)}
        readable = [sandbox.PACKAGES, *([self.spec.data] if self.spec.data else [])]
        command = self._confined(expand(self.task.metric.command, **values), self.spec.scoring, readable)
        scoring = Scoring(self.spec, command, self._environment(self.spec.scoring))
        self._children.append(scoring.child)
        return scoring

    def _take_over(self, name: str) -> None:
        """Copies one output out of the run's reach, into the folder the scoring command works in."""
        source, target = self.spec.work / name, self.spec.scoring / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(read_regular(source, self.task.run.output_bytes))

    # --- beside the run ---

    def _confined(self, command: list[str], folder: Path, readable: Sequence[Path] = ()) -> list[str]:
        (folder / "tmp").mkdir(exist_ok=True)
        bounds = self.task.sandbox
        gpu = self.slot.startswith("gpu")
        confinement = sandbox.Confinement(folder, readable, gpu, bounds.processes, bounds.disk_mb << 20)
        return sandbox.wrap(self.spec.enforcement, command, confinement)

    def _environment(self, folder: Path, **extra: str) -> dict[str, str]:
        devices = self.slot.removeprefix("gpu") if self.slot.startswith("gpu") else ""
        if self.task.run.device == "cpu":
            extra["AUTORESEARCH_DEVICE"] = "cpu"
        mark = str(self.spec.folder)
        return sandbox.environment(folder, mark, CUDA_VISIBLE_DEVICES=devices, **extra)

    async def _stop_asked(self) -> bool:
        return self.terminated or self.spec.stop.exists()

    async def _listen_for_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for received in signals:
                if received != signal.SIGHUP:  # a closing terminal is no reason to end a run
                    self.terminated = True

    async def _report(self) -> None:
        """Says where the run is, for whoever waits; ends it where it uses more than it may."""
        while True:
            aside = self._scoring.child.pid if self._scoring else None
            usage = await anyio.to_thread.run_sync(limits.usage, self.spec.work, self.peak_memory_mb, aside)
            self.peak_memory_mb = max(self.peak_memory_mb, usage.memory_mb)
            if self.clock.phase in ("startup", "training", "export") and self.failed is None:
                self.failed = self._excess(usage)
            self._reap()
            progress = {
                "phase": self.clock.phase,
                "elapsed": self.clock.elapsed,
                "limit": self.clock.limit,
                "budget": self.task.run.budget_seconds,
                "pid": os.getpid(),
                "slot": self.slot,
            }
            await anyio.to_thread.run_sync(write_json, self.spec.progress, progress)
            await anyio.sleep(REPORT)

    def _excess(self, usage: limits.Usage) -> RunFailedError | None:
        bounds = self.task.sandbox
        if usage.processes > bounds.processes:
            reason = f"it had {usage.processes} processes; {bounds.processes} are allowed (sandbox.processes)"
            return RunFailedError("crash", "killed", reason)
        memory = bounds.memory_mb or limits.default_memory_mb()
        if usage.memory_mb > memory:
            return RunFailedError(
                "crash", "oom", f"it used {usage.memory_mb:.0f} MiB of memory; {memory} are allowed (sandbox.memory_mb)"
            )
        if usage.disk_mb > bounds.disk_mb or usage.files > limits.MAX_FILES:
            reason = f"it wrote {usage.disk_mb:.0f} MiB in {usage.files} files; {bounds.disk_mb} MiB are allowed (sandbox.disk_mb)"
            return RunFailedError("crash", "killed", reason)
        return None

    def _reap(self) -> None:
        limits.reap_adopted({child.pid for child in self._children})


def _leaves(group: BaseExceptionGroup[RunFailedError]) -> Iterator[RunFailedError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _line(**content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


async def _messages(stream: UNIXSocketStream) -> AsyncIterator[object]:
    """JSON objects, one a line; nonsense comes out as None, and a line without end ends the talk."""
    buffer = b""
    while len(buffer) < MESSAGE_BYTES:
        try:
            buffer += await stream.receive(4096)
        except anyio.EndOfStream:
            return
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def record(spec: RunSpec, ended: RunEnded) -> None:
    """Writes the result, trying again for a while if the disk is full or the ledger busy."""
    for attempt in range(60):
        try:
            ledger = Ledger(spec.ledger)
            ledger.append(ended)
            write_results(ledger, spec.results)
            return
        except (LedgerError, OSError):
            if attempt == 59:
                raise
            time.sleep(1)


def main(folder: str) -> None:
    spec = RunSpec.model_validate_json((Path(folder) / "spec.json").read_bytes())
    limits.become_subreaper()
    ended = anyio.run(Supervisor(spec).supervise)
    record(spec, ended)
    shutil.rmtree(spec.work / "tmp", ignore_errors=True)
    for name in spec.task.run.outputs:  # scored and done with; a night of them would fill the disk
        (spec.work / name).unlink(missing_ok=True)
        (spec.scoring / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
