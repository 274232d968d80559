"""Hosts one run on this machine: the detached process that sees to its result, whoever else dies.

    python -P -m autoresearch_mcp.executors.host FOLDER [SOCKET SECONDS]

With a socket the run in the folder is a draft: what it can begin with before anybody knows its file is made ready, and then the run
that comes over the socket is hosted. Where none comes, because whoever holds the other end is gone or has none for so many seconds,
everything that was made ready is ended and removed.

A result goes into the run's folder first, where a session finds it if all else fails, and into the ledger second, once. Everything
after that, results.tsv included, can fail without harm: it follows from the ledger.
"""

import io
import os
import signal
import socket
import sqlite3
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import UNIXSocketStream

from autoresearch_mcp.errors import AutoresearchError, LedgerError
from autoresearch_mcp.files import is_locked, write_atomic
from autoresearch_mcp.record.events import RunEnded
from autoresearch_mcp.record.exports import Results
from autoresearch_mcp.record.ledger import Ledger
from autoresearch_mcp.run import outputs, slots
from autoresearch_mcp.run.cell import Cell
from autoresearch_mcp.run.log import BoundedLog
from autoresearch_mcp.run.processes import become_subreaper, end_descendants
from autoresearch_mcp.run.spec import RunSpec
from autoresearch_mcp.run.supervisor import Supervisor

PATIENCE = 60.0  # seconds that the ledger is tried for
RETRY = 1.0  # seconds between tries
LOG_BYTES = 1 << 18
CARRYING = 0.02  # seconds between looks whether a result has arrived
WATCHING = 1.0  # and whether there is still somebody to carry one


def record(spec: RunSpec, ended: RunEnded, patience: float = PATIENCE) -> bool:
    """Leaves the result in the run's folder and writes its one row; tries again while the disk is full or the ledger busy. False
    where the ledger did not take it: then a session must collect it.
    """
    deadline, why = time.monotonic() + patience, ""
    while True:
        try:
            leave(spec, ended)
        except OSError as error:
            print(f"{spec.ended} cannot be written: {error}", file=sys.stderr)
        try:
            if spec.carrier is None:
                _append(spec, ended)
                return True
            if spec.ended.exists():
                return _is_carried(spec, spec.carrier)
        except (AutoresearchError, sqlite3.Error, OSError) as error:
            why = f": {error}"
        if time.monotonic() >= deadline:
            print(f"the result is left in {spec.ended}, not recorded{why}", file=sys.stderr)
            return False
        time.sleep(RETRY)


def _is_carried(spec: RunSpec, carrier: Path) -> bool:
    """Waits until the result that was left is where it lasts. False where nobody is there to carry it."""
    while not spec.carried.exists():
        if not is_locked(carrier):
            return False
        time.sleep(CARRYING)
    return True


def leave(spec: RunSpec, ended: RunEnded) -> None:
    """Raises OSError."""
    if not spec.ended.exists():
        write_atomic(spec.ended, ended.model_dump_json().encode())


def _append(spec: RunSpec, ended: RunEnded) -> None:
    """Appends the row, unless one of this run is there: of a try whose success was not seen. A trial has no ledger."""
    if spec.ledger is None:
        return
    ledger = Ledger(spec.ledger, make=False)
    try:
        ledger.state()  # all of it before the transaction: nobody else can write while that is open
        with ledger.transaction() as transaction:
            run = transaction.state.runs.get(spec.run)
            if run is None or run.started.token != spec.token:
                raise LedgerError(f"{spec.ledger} knows no run {spec.run} of this host: it is the ledger of another workspace")
            if run.ended is None:
                transaction.append(ended)
    finally:
        ledger.close()


def bring_up_to_date(spec: RunSpec) -> None:
    """results.tsv, as far as it can be written; the next step of the session writes it again."""
    if spec.ledger is None:
        return
    try:
        ledger = Ledger(spec.ledger, make=False)
        try:
            if note := Results(ledger, spec.results).write():
                print(note, file=sys.stderr)
        finally:
            ledger.close()
    except (AutoresearchError, sqlite3.Error, OSError) as error:
        print(f"{spec.results} is not up to date: {error}", file=sys.stderr)


class Printed(io.TextIOBase):
    """What this process prints, in a log: a pipe that nobody drains would stop it, a file without bounds would fill the disk."""

    def __init__(self, log: BoundedLog):
        self._log = log

    def write(self, text: str, /) -> int:
        self._log.write(text.encode("utf-8", errors="replace"))
        return len(text)


async def host(spec: RunSpec, cell: Cell | None = None) -> None:
    async def deliver(ended: RunEnded) -> bool:
        return await anyio.to_thread.run_sync(record, spec.where_it_lies_now(), ended)

    async with anyio.create_task_group() as tasks:
        if spec.carrier is not None:
            tasks.start_soon(_end_with, spec.carrier, spec)
        await Supervisor(spec, deliver, cell).supervise()
        tasks.cancel_scope.cancel()


async def _end_with(carrier: Path, spec: RunSpec) -> None:
    """Ends a run whose result nobody would carry: its node has been given up, and the run may be on elsewhere by now."""
    while is_locked(carrier):  # noqa: ASYNC110 - it is another process that lets go
        await anyio.sleep(WATCHING)
    try:
        spec.stop.touch()
    except OSError:  # a full disk, or the folder is gone
        os.kill(os.getpid(), signal.SIGTERM)


async def stand_by(draft: RunSpec, given: socket.socket, patience: float) -> RunSpec | None:
    """Makes a run ready, and hosts the one that comes; None where none came."""
    cell = Cell(draft)
    loading = Loading(cell)
    spec: RunSpec | None = None
    try:
        async with anyio.create_task_group() as tasks, await UNIXSocketStream.from_socket(given) as stream:
            tasks.start_soon(loading.go_on)
            try:
                with anyio.move_on_after(patience):
                    spec = await _come(stream, draft)
            finally:
                loading.end(finish=spec is not None)
        if spec is not None:
            await host(spec, cell)
    finally:
        cell.close()
        end_descendants(users=cell.users)
    return spec


class Loading:
    """Of what a run can begin with, in a free slot, so that no run that is on is disturbed: one that wants the slot gets it, and
    what has begun is begun again later. What fails is left for the run to start itself.
    """

    def __init__(self, cell: Cell):
        self._cell, self._folder = cell, slots.slots_folder()
        self._queued, self._at_it = anyio.CancelScope(), anyio.CancelScope()
        self._finish = False

    def end(self, finish: bool) -> None:
        """Nothing is begun any more. `finish`: what has begun is finished, for the run that has come here."""
        self._finish = finish
        self._queued.cancel()
        if not finish:
            self._at_it.cancel()

    async def go_on(self) -> None:
        try:
            with self._queued:
                while not await self._turn():
                    pass
        except Exception as error:  # whatever it is, a run may have come meanwhile
            print(f"nothing was made ready: {type(error).__name__}: {error}", file=sys.stderr)

    async def _turn(self) -> bool:
        """With the slot in hand; whether it is done, or too late. Raises OSError, RunFailedError."""
        cell, done = self._cell, False
        held = await slots.take_slot(self._folder, cell.task.run, f"{cell.spec.line}{slots.READY}", lambda: False)
        if held is None:
            return True
        cell.slot = held.slot
        try:
            if self._queued.cancel_called:
                return True
            with anyio.CancelScope(shield=True) as self._at_it:
                failure: Exception | None = None
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._give_way)
                    try:
                        await cell.get_ready()
                        done = True
                    except Exception as error:  # raised below: a group would wrap it
                        failure = error
                    tasks.cancel_scope.cancel()
                if failure is not None:
                    raise failure
            if done:
                cell.spec.loaded.touch()
        finally:
            if not done:  # whatever the imports have started ends before the slot is another's
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(partial(end_descendants, users=cell.users))
            held.release()
        return done

    async def _give_way(self) -> None:
        """Leaves off when a run wants the slot; the run that has come here waits until it is done."""
        wanted = slots.needs(self._cell.task.run).keys()
        while not self._finish:
            if any(not ticket.is_last and wanted & ticket.wanted.keys() for ticket in slots.waiting(self._folder)):
                self._at_it.cancel()
            await anyio.sleep(slots.POLL)


async def _come(stream: UNIXSocketStream, draft: RunSpec) -> RunSpec | None:
    """The run whose folder is named over the socket, with the lock on it; None where the other end closes."""
    line, descriptors = b"", list[int]()
    while not line.endswith(b"\n"):
        try:
            part, came = await stream.receive_fds(1 << 16, 1)
        except anyio.EndOfStream:
            return None
        line, descriptors = line + part, descriptors + came
    folder = Path(os.fsdecode(line[:-1]))
    spec = RunSpec.read(folder)
    if spec is None or not descriptors:
        return None
    draft.path.unlink()  # from here on the folder is that run's
    os.chdir(folder)
    sys.stdout = sys.stderr = Printed(BoundedLog(spec.host_log, LOG_BYTES))
    with suppress(anyio.BrokenResourceError):  # whoever gave it has died meanwhile: it is ours all the same
        await stream.send(b"\n")
    return spec


def main(folder: str, descriptor: str = "", patience: str = "") -> None:
    spec = RunSpec.read(Path(folder))
    if spec is None:
        raise SystemExit(f"{folder} holds no run that this version can read")
    sys.stdout = sys.stderr = Printed(BoundedLog(spec.host_log, LOG_BYTES))
    become_subreaper()
    if not descriptor:
        anyio.run(host, spec)
    else:
        draft, spec = spec, anyio.run(stand_by, spec, socket.socket(fileno=int(descriptor)), float(patience))
        if spec is None:
            outputs.remove(draft.folder)
            return
    spec = spec.where_it_lies_now()
    bring_up_to_date(spec)
    outputs.remove_all(spec)


if __name__ == "__main__":
    main(*sys.argv[1:])
