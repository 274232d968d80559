"""Owns one run from its start to its result: takes a slot, starts the run in the sandbox, keeps the clock, hands over data, has the
result scored, and ends every process of the run. It knows no ledger and no executor: whoever hosts it puts the result on record.

A result is delivered as soon as it is known, and before the run hears of it; nothing that happens later changes it. So a run that
is told its score cannot choose by it whether it counts. The price is that its row says nothing of the seconds after.
"""

import json
import math
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio

from autoresearch_mcp.errors import NotAllowedError, RunFailedError
from autoresearch_mcp.files import write_atomic
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.run import compiled, control, failures, sandbox, slots
from autoresearch_mcp.run.beside import Beside
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.child import Child
from autoresearch_mcp.run.clock import Clock, Phase
from autoresearch_mcp.run.curve import Curve
from autoresearch_mcp.run.disturbance import Watch
from autoresearch_mcp.run.hardware import granted
from autoresearch_mcp.run.judging import Judging
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import end_descendants, reap_adopted
from autoresearch_mcp.run.scoring import Score
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.text import shown_score

LOOK = 0.25  # seconds between looks at the run, where nothing that is known beforehand or told asks for one
LEAST = 0.002  # seconds that nobody looks, whatever is due
GOODBYE = 10.0  # seconds a run has after its score to print its summary
TRAINED = "trained.json"  # for the scoring command: what the run said of its result when training ended

Deliver = Callable[[RunEnded], Awaitable[bool]]
"""Puts a result on record and raises nothing. True once it is there; only then does the run hear its score."""


class Supervisor:
    def __init__(self, spec: RunSpec, deliver: Deliver, cell: Cell | None = None):
        """`cell` is one that was made ready for a run like this."""
        self.task = spec.task
        self._deliver = deliver
        self._cell = cell or Cell(spec)
        self._cell.spec, self._cell.task = spec, spec.task
        self._others = Watch(granted(), spec.task.run.budget_seconds)
        self.clock = Clock(spec.task.run, self._leave_phase)
        self._news = anyio.Event()
        self._curve = Curve(spec.task.run, spec.earlier)
        self._children = self._cell.spare.pids
        self._judging = Judging(self._cell, self._children)
        self._beside = Beside(self._cell, self._judging, self.clock, self._others, self._fail)
        self._checks: dict[str, str] = {}
        self._left: list[str] = []  # processes that could not be ended
        self._ended_from_outside = False
        self._declared = spec.task.run.declares is None
        self._submitted = False
        self._failed: RunFailedError | None = None
        self._ended: RunEnded | None = None
        self._leave_by: float | None = None  # when a run that knows its score is ended

    @property
    def spec(self) -> RunSpec:
        return self._cell.spec

    async def supervise(self) -> None:
        """The whole run. Delivers exactly one result and raises nothing, whatever the run, the machine or this code does."""
        held: slots.Held | None = None
        result: Score | RunFailedError | None = None
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._listen_for_signals)
            try:
                self._judging.take_on()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._beside.report)
                    held = await self._take_slot()
                    self._cell.slot = held.slot
                    self._others.start(held.slot)
                    self._beside.start()
                    result = await self._run()
                    tasks.cancel_scope.cancel()
            except Exception as error:  # also a group of them, of what went on at once
                result = failures.of_error(error)
            try:
                await self._end_processes()
                _say_cleared(self.spec, self._left)
            except Exception as error:
                self._fail(failures.of_error(error))
            if self._cell.refusals is not None:
                with suppress(OSError):
                    self.spec.refused.write_text("\n".join(self._cell.refusals.found), errors="backslashreplace")
            self._cell.close()
            await self._conclude(self._failed or result or RunFailedError("crash", "error", "it ended without a result"))
            beside.cancel_scope.cancel()
        if held is not None:
            held.release()

    # --- the result ---

    async def _conclude(self, result: Score | RunFailedError) -> bool:
        """Delivers the result, unless one has been: whether this one is on record. Nothing cuts it short."""
        if self._ended is not None:
            return False
        try:
            self.clock.enter("done")
            self._ended = self._row(result)
        except Exception as error:
            self._ended = self._row(failures.of_error(error))
        recorded = False
        with anyio.CancelScope(shield=True):
            recorded = await self._deliver(self._ended)
        return recorded

    def _row(self, result: Score | RunFailedError) -> RunEnded:
        note = f"processes of it could not be ended and may hold the machine: {', '.join(self._left)}" if self._left else ""
        fields: dict[str, Any] = {
            "run": self.spec.run,
            "seconds": self.clock.recorded(),
            **self._beside.row,
            "enforcement": self.spec.enforcement,
            "excerpt": note,
            **self._curve.row,
            **self._others.conditions,
            "stopped": self.spec.stop.exists(),
        }
        if isinstance(result, Score):
            fields |= {"outcome": "scored", "score": result.score, "holdout": result.holdout}
            fields |= {"details": result.details, "marks": result.marks, "checks": self._checks}
        else:
            excerpt = failures.excerpt(self.spec, result, note)
            fields |= {"outcome": result.outcome, "failure": result.failure, "excerpt": excerpt}
        return RunEnded.model_validate(fields)

    async def _end_processes(self) -> None:
        """Ends all that is left of the run and its scoring, and remembers what cannot be ended."""
        self._left = (await anyio.to_thread.run_sync(end_descendants, self._children, self._cell.users))[:8]
        if self._left:
            print(f"run {self.spec.run}: these processes could not be ended: {', '.join(self._left)}", file=sys.stderr)
        self._judging.end()
        reap_adopted(set(self._children))

    # --- the run ---

    async def _take_slot(self) -> slots.Held:
        run = self.task.run
        if reason := self.task.outdated or sandbox.refusal(self.task, self.spec.enforcement) or slots.refusal(run):
            raise RunFailedError("refused", "refused", reason)
        taken = await slots.take_slot(slots.slots_folder(), run, self.spec.line, lambda: self._stopped() is not None)
        if taken is None:
            raise self._stopped() or RunFailedError("crash", "killed", "it gave up waiting for a slot")
        return taken

    async def _run(self) -> Score | None:
        """Runs the task's command, if it has one, and scores what it leaves; None where the run submitted, and so has its result.
        Raises RunFailedError.
        """
        if self.task.run.command is None:
            return await self._evaluate()
        if self.task.metric.starts_early:
            scoring = self._judging.start()
            if not self.task.data.train:  # else the clock waits with the data
                await scoring.ready()
        if self.task.run.compiled is not None:
            self.clock.enter("compile")
            await compiled.provide(self._cell, self._children, self._given_up)
        child = await self._run_command(self.task.run.command)
        if self._failed is not None:
            raise self._failed
        if self._ended is not None:
            return None
        if child.returncode != 0:
            raise failures.by_log(self.spec, child.returncode)
        if self._left:
            raise RunFailedError("crash", "error", "it left processes that cannot be ended; nothing is scored beside them")
        return await self._evaluate()

    async def _run_command(self, command: list[str]) -> Child:
        """The command from its start until no process of it is left."""
        log = BoundedLog(self.spec.log, self.task.run.log_bytes)
        child, ours = self._cell.start_run(command, log)
        self._children.append(child.pid)
        self.clock.enter("startup" if self.task.data.train else "training")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.pump)
            tasks.start_soon(control.serve, ours, self)
            tasks.start_soon(self._tell_of_end, child)
            await self._watch(child)
            tasks.cancel_scope.cancel()
        await self._end_processes()
        child.drain()
        self._curve.close(child.tail)
        child.end()
        log.close()
        return child

    async def _watch(self, child: Child) -> None:
        """Until the process has ended and what it submitted is scored, its time is up, or somebody asks to stop. It sleeps until
        something of that is told or due: what looks often takes compute from the run.
        """
        while child.returncode is None or (self._submitted and self._leave_by is None):
            if self._failed is not None or (self._leave_by is not None and time.monotonic() > self._leave_by):
                return
            if stopped := self._stopped():
                self._failed = stopped
            elif self.clock.overdue and self.clock.phase != "evaluation":
                self._failed = failures.overdue(self.clock)
            else:
                self._failed = self._curve.look(child.tail, self.clock, self._others)
            if self._failed is None:
                self._news = anyio.Event()
                with anyio.move_on_after(self._until_next_look()):
                    await self._news.wait()
        if self.clock.overdue:  # it ended between two looks
            self._fail(failures.overdue(self.clock))

    async def _tell_of_end(self, child: Child) -> None:
        await child.wait(math.inf)
        self._news.set()

    def _until_next_look(self) -> float:
        """Seconds: not past the moment at which the phase, or the patience with a run that knows its score, is over."""
        due = [LOOK, self._curve.every]
        if self.clock.limit is not None and self.clock.phase != "evaluation":
            due.append(self.clock.limit - self.clock.elapsed)
        if self._leave_by is not None:
            due.append(self._leave_by - time.monotonic())
        return max(LEAST, min(due))

    def _leave_phase(self, phase: Phase) -> None:
        self._others.look(phase)
        self._news.set()

    def _fail(self, failure: RunFailedError | None) -> None:
        """Ends the run where there is a failure; the first counts."""
        if failure is not None and self._failed is None:
            self._failed = failure
            self._news.set()

    # --- what the run may ask for: control.Requests ---

    async def declare(self) -> dict[str, str]:
        """What the scoring command says of the run's declaration. It is taken over first, so that nothing can change it."""
        name = self.task.run.declares
        if name is None or (scoring := self._judging.scoring) is None:
            raise NotAllowedError("this task has nothing to declare")
        if self._declared or self.clock.phase != "startup":
            raise NotAllowedError("a run declares once, before it asks for data")
        self.clock.enter("check")
        try:
            await self._judging.take_over(name)
            marks = await scoring.declared()
        except RunFailedError as failed:
            self._fail(failed)
            raise
        self._declared = True
        self.clock.enter("startup")
        return marks

    async def data(self) -> control.Handover:
        """The training data as read-only descriptors. The first time, the budget starts."""
        if self.spec.data is None or not self.task.data.train:
            raise NotAllowedError("this task has no training data")
        if self.clock.phase not in ("startup", "training"):
            raise NotAllowedError("training has ended; no more data is handed over")
        if not self._declared:
            raise NotAllowedError(f"this task's runs declare {self.task.run.declares} first: call declare before asking for data")
        try:
            descriptors = await self._cell.open_data(self.spec.data)
        except RunFailedError as failed:
            self._fail(failed)
            raise
        if self._judging.scoring is not None:
            await self._judging.scoring.ready()
        if self.clock.phase == "startup":
            self.clock.enter("training")
        return control.Handover(self.task.data.train, descriptors, self.clock.budget)

    async def trained(self, said: dict[str, Any]) -> None:
        """Training is over; the first word on it counts."""
        if self.clock.phase not in ("startup", "training"):
            return
        failures.require_in_time(self.clock)
        try:
            text = json.dumps(said).encode()
        except RecursionError:
            raise NotAllowedError("the message is nested too deeply") from None
        self.clock.enter("export")
        await anyio.to_thread.run_sync(write_atomic, self.spec.scoring / TRAINED, text)

    async def submit(self) -> float:
        """The score of what the run leaves now, as an agent sees it, when it is on record. GOODBYE seconds later the run ends."""
        if self._submitted or self._failed is not None:
            raise NotAllowedError("a run submits once")
        failures.require_in_time(self.clock)
        self._submitted = True
        try:
            result = await self._evaluate()
        except RunFailedError as failed:
            result = self._failed or failed
        recorded = await self._conclude(result)
        self._leave_by = time.monotonic() + (GOODBYE if recorded else 0.0)
        self._news.set()
        if isinstance(result, RunFailedError):
            raise result
        if not recorded:
            raise NotAllowedError("the result could not be put on record")
        return shown_score(result.score)

    async def _evaluate(self) -> Score:
        """Has what the run leaves scored and checked. Raises RunFailedError."""
        self.clock.enter("evaluation")
        self._cell.follow()
        score = await self._judging.score(self._given_up)
        if self.task.checks:
            self.clock.enter("checks")
            self._checks = await self._judging.check(self._given_up)
        return score

    # --- beside the run ---

    def _stopped(self) -> RunFailedError | None:
        """Why the run must end though nothing is wrong with it: at the agent's request (a result), by another's hand (a loss)."""
        if self.spec.stop.exists():
            return RunFailedError("crash", "killed", "the run was stopped on request")
        if self._ended_from_outside:
            return RunFailedError("crash", "lost", "its supervisor was told to end, by a person or because the machine goes down")
        return None

    def _given_up(self) -> RunFailedError | None:
        """Why nobody waits for a score any more: it must end, or more was used than may be."""
        return self._failed or self._stopped()

    async def _listen_for_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for received in signals:
                if received != signal.SIGHUP:  # a closing terminal is no reason to end a run
                    self._ended_from_outside = True
                    self._news.set()


def _say_cleared(spec: RunSpec, left: Sequence[str]) -> None:
    """So that nobody looks for processes of the run among all that there are, where it is sure that there are none."""
    if not left and sys.platform == "linux" and spec.enforcement != "none":  # elsewhere one that forks twice is nobody's
        with suppress(OSError):
            spec.cleared.touch()
