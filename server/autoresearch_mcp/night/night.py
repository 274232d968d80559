"""Keeps an agent alive for so many hours: starts it, sees whether it works, ends it when it stands still, and starts it again.

The loop stays the agent's, its memory is the ledger; here nothing is proposed, run or judged. That it works is seen from outside:
its server notes every call, the ledger grows, or a run is on. What comes after each start is `patience`'s to say. At the end come
the commands of the morning, CLOSING, as a person would type them.

    Ctrl-C, or `stop --night`    the morning comes now; a second time: without its commands
    SIGTERM                      the agent is ended and nothing else is done, for the machine may be going down
    SIGHUP                       nothing: a terminal that is closed does not end a night

The price of looking: one small query and a file's time, twice a second.
"""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from autoresearch_mcp.errors import AutoresearchError, NotAllowedError
from autoresearch_mcp.files import is_locked, try_lock
from autoresearch_mcp.loop.activity import last_call
from autoresearch_mcp.loop.session import Session, open_ledger
from autoresearch_mcp.night.agent import Agent, running
from autoresearch_mcp.night.diary import Diary, last_lines
from autoresearch_mcp.night.patience import Ended, Patience, after
from autoresearch_mcp.night.recipes import Recipe, recipe
from autoresearch_mcp.text import format_score
from autoresearch_mcp.views import prompt
from autoresearch_mcp.views.terminal import progress_line
from autoresearch_mcp.workspace import Workspace

LOOK = 0.5  # seconds between looks at agent, ledger and clock
NOT_STARTED = 127  # the exit status that a shell gives a program that it cannot start
CLOSING = (("verify",), ("finalize",))
"""Commands of our own command line that end a night on which something was kept, each with --workspace and --session added."""

TONIGHT = """\
# Tonight

You were started by a program, and nobody is there: a question gets no answer, and to end your turn is to end. Work through the
tools of the server `autoresearch` until you are stopped, and do not sum up or ask whether to go on.

This is start {number} of the night{before}. What earlier starts did is in the ledger: `status` and `history` show it.
"""


# --- one night in a workspace -----------------------------------------------------------------------------------------


def log_path(workspace: Workspace) -> Path:
    return workspace.state_dir / "night.log"


def _stop_path(workspace: Workspace) -> Path:
    return workspace.state_dir / "night.stop"


def _lock_path(workspace: Workspace) -> Path:
    return workspace.state_dir / "night.lock"


@contextmanager
def only_night(workspace: Workspace) -> Generator[None]:
    """While it is open, no other night is on in the workspace. Raises NotAllowedError where one is."""
    if (lock := try_lock(_lock_path(workspace))) is None:
        raise NotAllowedError(
            f"A night is on in {workspace.root} already; {log_path(workspace)} tells of it. To end it: "
            f"autoresearch-mcp stop --night --workspace {workspace.root}"
        )
    try:
        _stop_path(workspace).unlink(missing_ok=True)  # of a night that was not there to see it
        yield
    finally:
        os.close(lock)


def ask_to_stop(workspace: Workspace) -> None:
    """Ends the night that is on. Raises NotAllowedError where none is."""
    if not is_locked(_lock_path(workspace)):
        raise NotAllowedError(f"No night is on in {workspace.root}. To end a run that is on: autoresearch-mcp stop")
    _stop_path(workspace).touch()


# --- the night --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a look at the session shows."""

    rows: int = 0
    """Of the ledger."""
    called: int | None = None
    """The last call of a tool."""
    running: bool = False
    brought: str = ""
    """What the night has brought, in words."""
    line: str = field(default="", compare=False)
    """Where the run that is on stands; no sign of the agent's."""
    result: bool = False
    """Whether there is a best experiment."""
    done: str = field(default="", compare=False)
    """Why the session is over, by the limits of its task."""


class Night:
    def __init__(
        self,
        session: Session,
        recipe: Recipe,
        diary: Diary,
        hours: float,
        stall: float,
        closing: Sequence[Sequence[str]],
    ):
        """`stall`: seconds without a call, while no run is on, after which the agent is started afresh."""
        self.session, self.recipe, self.diary = session, recipe, diary
        self.hours, self.stall, self.closing = hours, stall, closing
        self._seconds = hours * 3600
        self._patience = Patience()
        self._kinds = Counter[str]()  # of how starts ended
        self._starts = 0
        self._before = ""  # why the latest start ended
        self._stops = 0  # how often somebody asked for the end; from the second time on nothing more is done
        self._fault = ""  # the latest one of looking
        self._seen = Seen()
        self._first = len(session.state.experiments)

    async def spend(self) -> None:
        """The whole night and its morning. Raises AutoresearchError where the agent does not work."""
        self._began = anyio.current_time()
        advice = ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            try:
                self._begin()
                self._seen = await anyio.to_thread.run_sync(self._look)
                advice = await self._keep_alive()
                self._finish(advice)
                if self._stops < 2 and self._seen.result:
                    await self._close()
            finally:
                self.diary.close()
                tasks.cancel_scope.cancel()
        if advice:
            raise AutoresearchError(f"The night was given up. {advice} The log: {self.diary.path}")

    async def _keep_alive(self) -> str:
        """Starts agents until the night is over. Returns what a human should do, where it was given up."""
        while not self._over():
            ended, seconds = await self._start()
            if ended is None:
                break
            self._kinds[ended.kind] += 1
            self._before = ended.reason()
            self._patience, following = after(self._patience, ended)
            if ended.kind in ("stalled", "failed"):
                with suppress(Exception):  # no hook ends a night
                    self.session.hooks.fire("stall", {"reason": self._before})
            then = "the night is given up" if following.pause is None else f"the next start is in {following.pause:.0f} s"
            self.diary.note(
                f"start {self._starts} was over after {_span(seconds)}: {self._before}; {then}{last_lines(ended.output)}"
            )
            if following.pause is None:
                return following.advice
            await self._pause(following.pause)
        return ""

    async def _start(self) -> tuple[Ended | None, float]:
        """One start of the agent and how many seconds it took; None where the night is over before it is."""
        self._starts += 1
        began, status, stood_still = anyio.current_time(), None, False
        first = self._seen = await anyio.to_thread.run_sync(self._look)
        try:
            command, said = self.recipe.with_prompt(await anyio.to_thread.run_sync(self._prompt))
            async with running(command, said, self.session.workspace.root, self.recipe.variables) as agent:
                stood_still = await self._watch(agent)
                status = agent.status
        except AutoresearchError as error:  # nothing was started
            return Ended(NOT_STARTED, str(error), called=False, recorded=False), 0.0
        if agent.left:
            self.diary.note(f"these processes of the agent's could not be ended: {', '.join(agent.left[:8])}")
        last = self._seen = await anyio.to_thread.run_sync(self._look)
        if status is None and not stood_still:
            return None, 0.0
        called = last.called != first.called
        ended = Ended(status, agent.output, called, recorded=called and last.rows > first.rows)
        return ended, anyio.current_time() - began

    async def _watch(self, agent: Agent) -> bool:
        """Until it ends or the night does; True where it stood still before."""
        since = anyio.current_time()
        while agent.status is None and not self._over():
            await anyio.sleep(LOOK)
            seen = await anyio.to_thread.run_sync(self._look)
            if seen != self._seen or seen.running:
                since = anyio.current_time()
            self._seen = seen
            self._show(seen.line)
            if anyio.current_time() - since > self.stall:
                return agent.status is None
        return False

    async def _pause(self, seconds: float) -> None:
        until = anyio.current_time() + seconds
        while (left := until - anyio.current_time()) > 0 and not self._over():
            self._show(f"the next start is in {left:.0f} s")
            await anyio.sleep(min(LOOK, left))

    # --- what there is ---

    def _look(self) -> Seen:
        """Blocks. A fault of disk or ledger is noted, once, and says nothing of the agent."""
        session = self.session
        try:
            session.refresh()
            state, running = session.state, bool(session.state.running)
            tonight, best = state.experiments[self._first :], state.best
            brought = f"{len(tonight)} new experiments, {sum(experiment.kept for experiment in tonight)} kept"
            if best and best.score is not None:
                brought += f"; best {format_score(best.score)}"
            line = progress_line(session) if running else ""
            done = session.done() if session.position().phase == "done" else ""
            return Seen(session.ledger.length, last_call(session), running, brought, line, best is not None, done)
        except Exception as error:  # the next look may succeed: the night goes on
            if (fault := f"{type(error).__name__}: {error}") != self._fault:
                self._fault = fault
                self.diary.note(f"cannot look: {fault}")
            return self._seen

    def _prompt(self) -> str:
        before = f"; the one before is over: {self._before}" if self._before else ""
        return f"{prompt.research(self.session)}\n\n{TONIGHT.format(number=self._starts, before=before)}"

    def _over(self) -> bool:
        stop = _stop_path(self.session.workspace)
        if stop.exists():
            with suppress(OSError):
                stop.unlink()
            self._stops += 1
        return bool(self._stops or self._seen.done) or anyio.current_time() - self._began >= self._seconds

    async def _listen(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self.diary.note("the terminal was closed; the night goes on")
                else:
                    self._stops += 1 if number == signal.SIGINT else 2

    # --- what is told ---

    def _begin(self) -> None:
        ends = time.strftime("%H:%M", time.localtime(time.time() + self._seconds))
        self.diary.note(
            f"a night of {self.hours:g} h with {Path(self.recipe.command[0]).name}, session {self.session.tag}, until {ends}; "
            f"to end it before: autoresearch-mcp stop --night -w {self.session.workspace.root}"
        )

    def _finish(self, advice: str) -> None:
        why = advice or ("it was asked to end" if self._stops else self._seen.done or "its hours are up")
        self.diary.note(f"the night is over: {why}\n{self._account()}")
        with suppress(Exception):
            self.session.hooks.fire("end", {"reason": why}, wait=True)

    def _show(self, more: str) -> None:
        self.diary.show("; ".join(part for part in (self._account(), more) if part))

    def _account(self) -> str:
        """What the night has cost and brought so far."""
        ends = ", ".join(f"{count} {kind}" for kind, count in self._kinds.items())
        spent = f"{_span(anyio.current_time() - self._began)} of {self.hours:g} h"
        return f"{spent}; start {self._starts}{f' ({ends})' if ends else ''}; {self._seen.brought}"

    # --- the morning ---

    async def _close(self) -> None:
        """Runs the commands of the morning and shows what they say, until somebody asks to stop once more."""
        asked = self._stops
        for command in self.closing:
            self.diary.note(f"autoresearch-mcp {' '.join(command)}")
            try:
                status, said = await self._morning(command, asked)
            except AutoresearchError as error:
                status, said = NOT_STARTED, str(error)
            how = "was not waited for" if status is None else f"ended with exit status {status}"
            self.diary.note(said if status == 0 else f"it {how}: run it by hand\n{said}")
            if self._stops > asked:
                return

    async def _morning(self, command: Sequence[str], asked: int) -> tuple[int | None, str]:
        """Exit status of a command of ours, None where it was not waited for, and what it said."""
        where = ["--workspace", str(self.session.workspace.root), "--session", self.session.tag]
        line, status = [sys.executable, "-P", "-m", "autoresearch_mcp.cli", *command, *where], None
        async with running(line, "", self.session.workspace.root, {}) as ours:
            while (status := ours.status) is None and self._stops == asked:
                await anyio.sleep(LOOK)
                self._over()  # which counts
                self._show(f"autoresearch-mcp {command[0]}")
        return status, ours.output


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def run_night(
    folder: Path,
    tag: str | None,
    client: str | None,
    added: list[str],
    hours: float,
    stall: float,
    closing: Sequence[Sequence[str]] = CLOSING,
) -> None:
    """A night in the workspace at `folder`; `stall` in seconds. Raises AutoresearchError where it cannot begin, or was given up."""
    workspace = Workspace(folder)
    with only_night(workspace):
        session = Session.start(workspace, open_ledger(workspace), tag)
        wanted = recipe(client, added, workspace.root, session.tag)
        if session.data.missing():
            session.data.prepare(workspace.root)
        anyio.run(Night(session, wanted, Diary(log_path(workspace)), hours, stall, closing).spend)
