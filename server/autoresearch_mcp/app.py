"""The MCP surface: tools, resources and the prompt, as typed functions with docstrings. The rules are in session.py."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from autoresearch_mcp import __version__
from autoresearch_mcp.errors import AutoresearchError
from autoresearch_mcp.loop.patches import FORMS
from autoresearch_mcp.loop.session import OF_EXPERIMENTS, Session
from autoresearch_mcp.record.ledger import results_tsv
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.task import Task
from autoresearch_mcp.views import answers
from autoresearch_mcp.workspace import PROGRAM

WAIT_CAP, WAIT_DEFAULT = 240.0, 45.0  # seconds: some clients cut a call at 60, Claude Desktop near 240, Codex at 300
PATIENT = {
    "claude-code",
    "codex-mcp-client",
    "gemini-cli-mcp-client",
}  # clients, by the name they give, that sit through WAIT_CAP by default
POLL_FIRST, POLL_LAST = 0.02, 0.5  # seconds between looks at a run: fast for short ones, gentle for long ones
ANNOUNCE_EVERY = 0.5  # seconds between looks for changes, while anybody subscribes to resources
RESULTS = "autoresearch://results.tsv"
REPORT_EVERY = 2.0  # seconds between progress notifications

T = TypeVar("T")

_ONE_AT_A_TIME = anyio.CapacityLimiter(1)  # a session and its git are used by one thread at a time


def _lean(schema: dict[str, Any]) -> None:
    """Takes out of a parameter's JSON schema what tells a model nothing: that null means left out."""
    choices: list[dict[str, Any]] = schema.get("anyOf", [])
    if {"type": "null"} in choices:
        del schema["anyOf"], schema["default"]
        schema |= next(choice for choice in choices if choice != {"type": "null"})


def _argument(description: str, ge: int | None = None) -> Any:
    return Field(description=description, json_schema_extra=_lean, ge=ge)


Wait = Annotated[float | None, _argument("Seconds to wait for the result, 0 to 240; the default suits your client")]
First = Annotated[int | None, _argument("First line, from 1", ge=1)]
Last = Annotated[int | None, _argument("Last line, included", ge=1)]
Number = Annotated[int | None, _argument("The latest if left out")]
Patch = Annotated[str, _argument(FORMS[:1].upper() + FORMS[1:])]
Learned = Annotated[str | None, _argument("What this result taught, for every later session")]

READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
DESTROY = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

# Claude Code otherwise shows the model the tools' names alone, and it must look each up before the first call.
ALWAYS_LOAD = {"anthropic/alwaysLoad": True}


def instructions(task: Task) -> str:
    """What a client shows its model on connecting."""
    better = "lower" if task.metric.direction == "minimize" else "higher"
    return (
        f"autoresearch: improve one file, {task.files.editable}, against one metric, {task.metric.name} ({better} is better), "
        f"in runs of a fixed budget. Loop: {task.read_tool} -> apply_patch -> run_experiment -> {task.get_tool} until it is "
        "scored -> keep or discard -> next idea. Never stop by yourself. The server enforces the rules, and every answer names "
        "the next step. "
        "First call status, then read_reference program.md."
    )


def build_server(session: Session) -> MCPServer:
    """An MCP server for one session; tool names follow the task."""
    task, subscribers = session.task, Subscribers()
    server = MCPServer(
        "autoresearch",
        title="autoresearch-mcp",
        version=__version__,
        instructions=instructions(task),
        log_level="WARNING",
        subscriptions=subscribers,
        lifespan=partial(_announcing, session, subscribers),
    )
    file, metric = task.files.editable, task.metric.name

    async def read(start_line: First = None, end_line: Last = None) -> Annotated[CallToolResult, answers.FileView]:
        return await _answer(partial(_view, session, start_line, end_line))

    async def apply_patch(patch: Patch) -> Annotated[CallToolResult, answers.PatchApplied]:
        return await _answer(partial(_patched, session, patch))

    async def run_experiment(
        ctx: Context,
        description: Annotated[str, _argument("What this experiment tries, in a few words")],
        hypothesis: Annotated[str | None, _argument("Why it should help; recorded")] = None,
        replicate: Annotated[bool, _argument("Run an unchanged file again, to measure the noise")] = False,
        wait_seconds: Wait = None,
    ) -> Annotated[CallToolResult, answers.Result]:
        number, note = await _step(partial(session.run_experiment, description, hypothesis, replicate))
        return await _wait(session, ctx, number, wait_seconds, note)

    async def get_metric(
        ctx: Context, experiment: Number = None, wait_seconds: Wait = None
    ) -> Annotated[CallToolResult, answers.Result]:
        number = (await _step(partial(session.experiment, experiment))).number
        return await _wait(session, ctx, number, wait_seconds)

    async def keep(learned: Learned = None) -> Annotated[CallToolResult, answers.Judged]:
        return await _answer(partial(_kept, session, learned))

    async def discard(learned: Learned = None) -> Annotated[CallToolResult, answers.Judged]:
        return await _answer(partial(_discarded, session, learned))

    async def status() -> Annotated[CallToolResult, answers.Status]:
        return await _answer(partial(_status, session))

    async def history(
        search: Annotated[str | None, _argument("Only experiments with all of these words")] = None,
    ) -> Annotated[CallToolResult, answers.History]:
        return await _answer(partial(answers.history, session, search))

    async def read_reference(
        name: Annotated[str, _argument(", ".join([*session.references(), *OF_EXPERIMENTS]))],
        start_line: First = None,
        end_line: Last = None,
    ) -> Annotated[CallToolResult, answers.Reference]:
        return await _answer(partial(_reference, session, name, start_line, end_line))

    async def stop_experiment(ctx: Context) -> Annotated[CallToolResult, answers.Result]:
        number = (await _step(session.stop)).number
        return await _wait(session, ctx, number)

    def add(function: Callable[..., Any], name: str, annotations: ToolAnnotations, description: str) -> None:
        server.add_tool(function, name=name, description=description, annotations=annotations, meta=ALWAYS_LOAD)

    add(read, task.read_tool, READ, f"Text of {file} with its revision and line count; optionally a range of lines.")
    add(
        apply_patch,
        "apply_patch",
        WRITE,
        f"Change {file}, the only file you can change. All or nothing; the result's syntax is checked.",
    )
    add(
        run_experiment,
        "run_experiment",
        WRITE,
        f"Commit {file} and run it for the fixed budget ({task.run.budget_seconds:g} s), then have it scored. Waits up to "
        f"wait_seconds; the run goes on in any case, and {task.get_tool} waits on. The first run must be the unchanged file, "
        "the baseline.",
    )
    add(
        get_metric,
        task.get_tool,
        READ,
        f"State of an experiment; when it is done: {metric}, how it compares with the best, the suggested verdict, where the "
        "time went; on a failure its name and the end of the log.",
    )
    add(
        keep,
        "keep",
        WRITE,
        f"Accept the current experiment as the best. Refused unless {metric} is better, or equal with fewer lines.",
    )
    # Nothing is lost by it: an experiment stays under its ref, and an edit that never ran is in the answer.
    add(discard, "discard", WRITE, f"Record the current experiment as not helpful and restore {file} to the best one.")
    add(status, "status", READ, "Where the loop stands: goal, best score, what is allowed now. Call it first.")
    add(history, "history", READ, "Past experiments in short: counts, the kept ones, the latest ones, what was learned.")
    add(
        read_reference,
        "read_reference",
        READ,
        f"Read {PROGRAM}, the task or another read-only file, or an experiment's output or diff.",
    )
    add(stop_experiment, "stop_experiment", DESTROY, "End the current run early; it is recorded as killed, without a score.")
    _add_resources(server, session)
    return server


def _add_resources(server: MCPServer, session: Session) -> None:
    file = session.task.files.editable

    @server.resource("autoresearch://program", mime_type="text/markdown")
    async def program() -> str:
        """The human's instructions."""
        return await _resource(partial(session.reference, PROGRAM))

    @server.resource(_file_uri(session), name=file, mime_type="text/plain")
    async def editable() -> str:
        """The editable file as it is now."""
        return (await _resource(session.read)).text

    @server.resource(RESULTS, mime_type="text/tab-separated-values")
    async def results() -> str:
        """All experiments: commit, metric, memory, status, description."""
        return await _resource(lambda: results_tsv(session.ledger.state()))

    @server.resource("autoresearch://experiments/{number}/log", mime_type="text/plain")
    async def experiment_log(number: int) -> str:
        """End of an experiment's output; untrusted data."""
        return await _resource(partial(answers.log, session, number))

    @server.resource("autoresearch://experiments/{number}/diff", mime_type="text/x-diff")
    async def experiment_diff(number: int) -> str:
        """What an experiment changed against the best of its time."""
        return await _resource(lambda: session.diff(session.experiment(number)))

    @server.prompt(title="Run the research loop")
    async def research() -> str:
        """The human's instructions and where the loop stands."""
        text = await _blocking(partial(session.reference, PROGRAM))
        state = await _blocking(partial(_status, session))
        return f"{text}\n\n# Where the loop stands\n\n{state.text()}"


# --- subscriptions: what changes is announced, whoever changed it ------------------------------------------------------


class Subscribers(InMemorySubscriptionBus):
    """The SDK's bus, which also knows whether anybody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = anyio.Event()

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self.listening.set()
        return super().subscribe(listener)


@asynccontextmanager
async def _announcing(session: Session, subscribers: Subscribers, _: MCPServer) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_announce, session, subscribers)
        yield
        tasks.cancel_scope.cancel()


async def _announce(session: Session, subscribers: Subscribers) -> None:
    """From the first subscription on, tells of every change to the file and to the results: another server's too."""
    await subscribers.listening.wait()
    known: dict[str, str] = {}
    while True:
        try:
            seen = await _blocking(partial(_seen, session))
        except AutoresearchError:
            seen = known  # a client that reads the resource is told why
        for uri, content in seen.items():
            if known.get(uri, content) != content:
                await subscribers.publish(ResourceUpdated(uri))
        known = seen
        await anyio.sleep(ANNOUNCE_EVERY)


def _seen(session: Session) -> dict[str, str]:
    session.refresh()
    return {_file_uri(session): session.read().revision, RESULTS: results_tsv(session.ledger.state())}


def _file_uri(session: Session) -> str:
    return "autoresearch://" + session.task.read_tool.removeprefix("read_")


# --- blocking work in threads, errors as tool errors ------------------------------------------------------------------


async def _blocking(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work, limiter=_ONE_AT_A_TIME)


async def _step(work: Callable[[], T]) -> T:
    try:
        return await _blocking(work)
    except AutoresearchError as error:
        raise ToolError(str(error)) from error


async def _answer(work: Callable[[], answers.Answer]) -> CallToolResult:
    return _shown(await _step(work))


async def _resource(work: Callable[[], T]) -> T:
    try:
        return await _blocking(work)
    except AutoresearchError as error:
        raise ResourceError(str(error)) from error


def _shown(answer: answers.Answer) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=answer.text())], structured_content=answer.structured())


def _patience(ctx: Context) -> float:
    """Seconds that the client is sure to wait for an answer."""
    client = ctx.session.client_params
    return WAIT_CAP if client and client.client_info.name in PATIENT else WAIT_DEFAULT


async def _wait(session: Session, ctx: Context, number: int, seconds: float | None = None, note: str = "") -> CallToolResult:
    """Waits for an experiment's result, reporting progress; answers with its state when it is there or time is up."""
    seconds = _patience(ctx) if seconds is None else min(max(seconds, 0.0), WAIT_CAP)
    started = anyio.current_time()
    pause, reported = POLL_FIRST, started
    while (await _step(partial(session.experiment, number))).running and anyio.current_time() - started < seconds:
        await anyio.sleep(min(pause, max(0.0, started + seconds - anyio.current_time())))
        pause = min(pause * 1.3, POLL_LAST)
        await _step(session.refresh)
        if anyio.current_time() - reported >= REPORT_EVERY:
            reported = anyio.current_time()
            progress = await _blocking(session.progress)
            text = f"experiment {number}: {progress['phase']}, {float(str(progress['elapsed'])):.0f} s"
            await ctx.report_progress(reported - started, seconds, text)
    return await _answer(partial(answers.result, session, number, note))


def _view(session: Session, start: int | None, end: int | None) -> answers.FileView:
    current = session.read()
    page = answers.page(current.text, start, end)
    return answers.FileView(
        next=page.then(session.task.read_tool, session.position().next),
        path=session.task.files.editable,
        revision=current.revision,
        total_lines=page.total,
        start_line=page.first,
        end_line=page.last,
        content=page.text,
    )


def _patched(session: Session, patch: str) -> answers.PatchApplied:
    diff, current = session.apply_patch(patch)
    given = {text for line in patch.splitlines() for text in (line, line[1:])}  # with a sign before it, or without
    return answers.PatchApplied(
        next=session.position().next,
        path=session.task.files.editable,
        revision=current.revision,
        added=len(diff.added),
        removed=len(diff.removed),
        diff=diff.text,
        as_written=all(line in given for line in (*diff.added, *diff.removed)),
    )


def _judged(session: Session, verdict: str, experiment: int | None, reason: str, undone: str = "") -> answers.Judged:
    best = session.state.best
    return answers.Judged(
        next=session.position().next,
        verdict=verdict,
        experiment=experiment,
        reason=reason,
        best_experiment=best.number if best else None,
        best_score=best.score if best else None,
        undone_diff=undone,
    )


def _kept(session: Session, learned: str | None) -> answers.Judged:
    experiment = session.keep(learned)
    assert experiment.verdict is not None
    return _judged(session, "keep", experiment.number, experiment.verdict.reason)


def _discarded(session: Session, learned: str | None) -> answers.Judged:
    experiment, undone = session.discard(learned)
    if experiment is None:
        return _judged(session, "discard", None, f"{session.task.files.editable} is the best experiment's again", undone)
    assert experiment.verdict is not None
    return _judged(session, "discard", experiment.number, experiment.verdict.reason)


def _status(session: Session) -> answers.Status:
    session.refresh()
    return answers.status(session, detect().level)


def _reference(session: Session, name: str, start: int | None, end: int | None) -> answers.Reference:
    name = name.strip()
    page = answers.reference(session, name, start, end)
    answer = answers.Reference(next=page.then("read_reference", session.position().next), name=name, content=page.text)
    if not page.whole:
        answer.total_lines, answer.start_line, answer.end_line = page.total, page.first, page.last
    return answer
