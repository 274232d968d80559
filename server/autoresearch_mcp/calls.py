"""What every call of a client goes through: blocking work in a thread, one piece at a time; waits with progress; errors as answers.

An error is an answer that says what happened and what to do next, never a traceback and never the SDK's bare "Error executing
tool". What was not foreseen goes with its traceback to the server's log, a bounded file, and its first line to stderr, which may be
a pipe that nobody drains: what does not fit there at once is dropped.
"""

import logging
import os
import select
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, CallToolResult, GetPromptResult, InputRequiredResult, TextContent
from pydantic import ValidationError

from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.session import Session
from autoresearch_mcp.text import visible, visible_json
from autoresearch_mcp.views import build
from autoresearch_mcp.views.answers import Answer

WAIT_CAP, WAIT_DEFAULT = 240.0, 45.0  # seconds: some clients cut a call at 60, Claude Desktop near 240, Codex at 300
PATIENT = {"claude-code", "codex-mcp-client", "gemini-cli-mcp-client"}  # clients by name that sit through WAIT_CAP by default
POLL_FIRST, POLL_LAST = 0.02, 0.5  # seconds between looks at a run: fast for short ones, gentle for long ones
REPORT_EVERY = 2.0  # seconds between progress notifications
AFTER_FAILURE = 60.0  # seconds
LOG_BYTES = 1 << 20  # of the server's log, twice: the one before is kept
LINE = 500  # characters on stderr; a pipe takes that many at once or none

T = TypeVar("T")
_ONE_AT_A_TIME = anyio.CapacityLimiter(1)  # a session and its git are used by one thread at a time
_log = logging.getLogger("autoresearch_mcp")


# --- work and waiting -------------------------------------------------------------------------------------------------


async def blocking(work: Callable[[], T]) -> T:
    """Does blocking work on the session in a thread, after whatever is on."""
    return await anyio.to_thread.run_sync(work, limiter=_ONE_AT_A_TIME)


async def in_spare_time(delay: float, work: Callable[[], object]) -> None:
    """Does work on the session that no call waits for, `delay` seconds from now. What fails is logged."""
    await anyio.sleep(delay)
    with _logging():
        await blocking(work)


async def again_and_again(every: float, work: Callable[[], object]) -> None:
    """Does work on the session in its spare time for ever; after a failure, which is logged, not at once again."""
    while True:
        await anyio.sleep(every)
        try:
            await blocking(work)
        except Exception as error:  # whatever it is, the calls go on
            _report(error)
            await anyio.sleep(AFTER_FAILURE)


async def beside_the_calls(delay: float, work: Callable[[], object]) -> None:
    """The same for long work that needs no session to itself: calls go on, and a server that ends does not wait for it."""
    await anyio.sleep(delay)
    with _logging():
        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


@contextmanager
def _logging() -> Generator[None]:
    try:
        yield
    except Exception as error:  # a server does not end because what it does beside the calls fails
        _report(error)


def _report(error: Exception) -> None:
    """Logs what failed while nobody waited for it: in a line what a person can mend, with its traceback what nobody expected."""
    expected = isinstance(error, AutoresearchError | OSError)
    _log.warning("%s", error if expected else f"{type(error).__name__}: {error}", exc_info=None if expected else error)


async def answer(work: Callable[[], Answer]) -> CallToolResult:
    """The tool's answer as text and as structured content, with nothing in it that is not seen."""
    made = await blocking(work)
    text, structured = visible(made.text()), visible_json(made.structured())
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


async def result(
    session: Session, ctx: Context, number: int | None, seconds: float | None = None, note: str = ""
) -> CallToolResult:
    """Waits for an experiment's result, for None the wave's, reporting progress; answers with its state when it is there or time is
    up.
    """
    seconds = _patience(ctx) if seconds is None else min(max(seconds, 0.0), WAIT_CAP)
    started = anyio.current_time()
    pause, reported = POLL_FIRST, started
    while await blocking(partial(session.waits, number)) and anyio.current_time() - started < seconds:
        await anyio.sleep(min(pause, max(0.0, started + seconds - anyio.current_time())))
        pause = min(pause * 1.3, POLL_LAST)
        await blocking(session.advance)
        if anyio.current_time() - reported >= REPORT_EVERY:
            reported = anyio.current_time()
            progress = await blocking(partial(session.progress, number))
            what = "the wave" if number is None else f"experiment {number}"
            await ctx.report_progress(reported - started, seconds, f"{what}: {progress.phase}, {progress.elapsed:.0f} s")
    return await answer(partial(build.result, session, number, note))


def _patience(ctx: Context) -> float:
    """Seconds that the client is sure to wait for an answer."""
    client = ctx.session.client_params
    return WAIT_CAP if client and client.client_info.name in PATIENT else WAIT_DEFAULT


# --- errors -----------------------------------------------------------------------------------------------------------


class AnsweringServer(MCPServer):
    """The SDK's server, with every failure answered in our words."""

    on_call: Callable[[], None] | None = None
    """Told of every call of a tool, before anything else. It fails none."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        if self.on_call is not None:
            with suppress(Exception):
                self.on_call()
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            text = visible(explained(error.__cause__ or error, f"call {name} again"))
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)

    async def read_resource(
        self, uri: Any, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        try:
            read = await super().read_resource(uri, context)
            if isinstance(read, InputRequiredResult):
                return read
            return [replace(part, content=visible(part.content)) if isinstance(part.content, str) else part for part in read]
        except ResourceError as error:
            if error.__cause__ is None:
                raise
            raise ResourceError(visible(explained(error.__cause__, "read it again"))) from error

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        try:
            made = await super().get_prompt(name, arguments, context)
            for message in made.messages if isinstance(made, GetPromptResult) else ():
                if isinstance(message.content, TextContent):
                    message.content.text = visible(message.content.text)
            return made
        except MCPError:
            raise
        except Exception as error:
            raise MCPError(code=INTERNAL_ERROR, message=visible(explained(error.__cause__ or error, "ask again"))) from error


def explained(error: BaseException, again: str) -> str:
    """What to tell of an error, with the next step; `again` says in words how to repeat what failed."""
    match error:
        case AutoresearchError() | ToolError():
            return str(error)
        case ValidationError():
            wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()[:5])
            return f"The arguments do not fit: {wrong}. Correct them and {again}."
        case _:
            _log.error("%s: %s", type(error).__name__, error, exc_info=error)
    if isinstance(error, MemoryError | OSError | sqlite3.Error):
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return (
            f"The machine refused: {reason}{where}. Nothing that was recorded is lost. Check disk space, memory and permissions, "
            f"then {again}; status says where the loop stands, and `autoresearch-mcp doctor` examines the rest."
        )
    return (
        f"Something in the server failed that should not ({type(error).__name__}); .autoresearch/server.log has more. Nothing that "
        f"was recorded is lost: call status, then {again}. If it fails again, a human must run: autoresearch-mcp doctor"
    )


class Visible(logging.Formatter):
    """Records that a person may read in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class OneLine(logging.Handler):
    """Writes the first line of a record to stderr, if that can be done at once."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            first = record.getMessage().splitlines()[0] if record.getMessage() else ""
            line = visible(f"autoresearch-mcp: {first}")[:LINE].encode("utf-8", "replace") + b"\n"
            if select.select([], [sys.stderr.fileno()], [], 0)[1]:
                os.write(sys.stderr.fileno(), line)
        except (OSError, ValueError):
            return  # closed, or no file at all


def log_to(path: Path) -> None:
    """From here on, what libraries and we report goes to a bounded file, and a line of it to stderr."""
    handlers: list[logging.Handler] = [OneLine()]
    try:
        file = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, delay=True, encoding="utf-8")
        file.setFormatter(Visible("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    except OSError:
        pass  # then the line on stderr is all there is
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.raiseExceptions = False  # a full disk must not bring tracebacks back to stderr
    logging.captureWarnings(True)
