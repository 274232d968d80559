"""The MCP surface: tools, resources and the prompt. A tool is one decorated function that asks for its answer; no logic is here."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import anyio
from mcp.server.apps import APP_MIME_TYPE, Apps
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resources import FunctionResource
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field, WithJsonSchema

from autoresearch_mcp import __version__, calls
from autoresearch_mcp.calls import AnsweringServer, blocking
from autoresearch_mcp.errors import NotAllowedError
from autoresearch_mcp.loop import batch
from autoresearch_mcp.loop.activity import last_call, note_call
from autoresearch_mcp.loop.batch import MOST, Entry
from autoresearch_mcp.loop.patches import FORMS, MAX_BYTES
from autoresearch_mcp.loop.rows import LEARNED
from autoresearch_mcp.loop.session import DESCRIPTION, Session, open_ledger
from autoresearch_mcp.run.sandbox import detect
from autoresearch_mcp.subscriptions import Subscribers, announcing
from autoresearch_mcp.task import PROGRAM, Task
from autoresearch_mcp.views import answers, build, prompt, references
from autoresearch_mcp.views.page import panel

ADVANCE_EVERY = 2.0  # seconds between looks whether a verdict waits for another run while no call does
CATCH_UP_AFTER, HEAL_AFTER = 0.5, 10.0  # seconds after the start: the answer to tools/list comes first
READY_EVERY, AT_WORK = 1.0, 600.0  # seconds between looks whether a next run is prepared for, and after a call that it may be
RESULTS = "autoresearch://results.tsv"


def _lean(schema: dict[str, Any]) -> None:
    """Takes out of a parameter's JSON schema what tells a model nothing: that null means left out."""
    choices: list[dict[str, Any]] = schema.get("anyOf", [])
    if {"type": "null"} in choices:
        del schema["anyOf"], schema["default"]
        schema |= next(choice for choice in choices if choice != {"type": "null"})


def _argument(description: str, most: int | None = None, ge: int | None = None) -> Any:
    """`most`: characters of a text. What is longer is refused before anything reads or stores it."""
    return Field(description=description, json_schema_extra=_lean, max_length=most, ge=ge, le=MOST_LINES if ge else None)


MOST_LINES = 10**9  # of a file, and experiments: a number beyond is none
WORDS = 300  # characters of a name or a search
Wait = Annotated[float | None, _argument("Seconds to wait, 0 to 240; the default suits your client")]
First = Annotated[int | None, _argument("First line, from 1", ge=1)]
Last = Annotated[int | None, _argument("Last line, included", ge=1)]
Number = Annotated[int | None, _argument("The latest if left out", ge=1)]
Patch = Annotated[str, _argument(FORMS[:1].upper() + FORMS[1:], most=MAX_BYTES)]
Learned = Annotated[str | None, _argument("What this result taught, for every later session", most=LEARNED)]
Description = Annotated[str, _argument("What this experiment tries, in a few words", most=DESCRIPTION)]
Hypothesis = Annotated[str | None, _argument("Why it should help; recorded", most=LEARNED)]
Replicate = Annotated[
    bool, _argument("Run a file again that has its result: to know the noise better. Repeats that a verdict needs come unasked")
]
Chosen = Annotated[int | None, _argument("Of a wave: which; the best if left out", ge=1)]
Stopped = Annotated[int | None, _argument("Of a wave: which", ge=1)]
Combine = Annotated[
    Annotated[list[int], Field(max_length=MOST)] | None,
    _argument("First merge the changes of these experiments, of any session, into the unedited file"),
]
CHANGE = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("patch", "description", "hypothesis")}
    | {"replicate": {"type": "boolean"}},
    "required": ["patch", "description"],
}
"""What a model must know of an Entry: the rest is as for the tools of one experiment."""
Experiments = Annotated[
    list[Annotated[Entry, WithJsonSchema(CHANGE)]],
    Field(description="As for apply_patch and run_experiment", min_length=1, max_length=MOST),
]
Everyone = Annotated[bool, _argument("With the experiments of the workspace's other sessions")]
Search = Annotated[str | None, _argument("Only experiments with all of these words", most=WORDS)]

READ = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
DESTROY = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

# Claude Code otherwise shows the model the tools' names alone, and it must look each up before the first call.
ALWAYS_LOAD = {"anthropic/alwaysLoad": True}
PANEL = "ui://autoresearch/night.html"
SHOWN: dict[str, Any] = ALWAYS_LOAD | {"ui": {"resourceUri": PANEL}}
"""Of a tool whose answer a host that knows MCP Apps shows as a panel. Models never see it."""


def instructions(task: Task) -> str:
    """What a client shows its model on connecting."""
    better = "lower" if task.metric.direction == "minimize" else "higher"
    return (
        f"autoresearch: improve one file, {task.files.editable}, against one metric, {task.metric.name} ({better} is better), "
        f"in runs of a fixed budget. Loop: {task.read_tool} -> apply_patch -> run_experiment -> {task.get_tool} until it is "
        "scored -> keep or discard -> next idea. Never stop by yourself. The server enforces the rules; the first of `allowed` in "
        "an answer is the next step. First call status, then read_reference program.md."
    )


def build_server(session: Session) -> AnsweringServer:
    """An MCP server for one session; tool names follow the task."""
    subscribers = Subscribers()
    apps = Apps()
    apps.add_resource(
        FunctionResource(
            uri=PANEL,
            name="panel",
            title="The night",
            mime_type=APP_MIME_TYPE,
            fn=panel.panel,
            meta={"ui": {"prefersBorder": False}},
        )
    )
    server = AnsweringServer(
        "autoresearch",
        extensions=[apps],
        title="autoresearch-mcp",
        version=__version__,
        instructions=instructions(session.task),
        log_level="WARNING",
        subscriptions=subscribers,
        lifespan=partial(_beside, session, subscribers),
    )
    server.on_call = partial(note_call, session)
    _add_tools(server, session)
    _add_resources(server, session)
    return server


def by_session(first: Session, server: AnsweringServer) -> Callable[[str | None], Awaitable[AnsweringServer]]:
    """The servers of all sessions of a workspace, by name; None is the first, which has its server. Raises AutoresearchError."""
    workspace = first.workspace

    async def made(name: str | None) -> AnsweringServer:
        if name is None:
            return server
        return build_server(await blocking(lambda: Session.start(workspace, open_ledger(workspace), name)))

    return made


def _add_tools(server: AnsweringServer, session: Session) -> None:
    task, file, metric = session.task, session.task.files.editable, session.task.metric.name

    def tool(
        name: str, annotations: ToolAnnotations, description: str, meta: dict[str, Any] = ALWAYS_LOAD
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return server.tool(name=name, description=description, annotations=annotations, meta=meta)

    @tool(task.read_tool, READ, f"Text of {file} with its revision and line count; optionally a range of lines.")
    async def read(start_line: First = None, end_line: Last = None) -> Annotated[CallToolResult, answers.FileView]:
        return await calls.answer(partial(build.file_view, session, start_line, end_line))

    @tool("apply_patch", WRITE, f"Change {file}, the only file you can change. All or nothing; the result's syntax is checked.")
    async def apply_patch(patch: Patch) -> Annotated[CallToolResult, answers.PatchApplied]:
        return await calls.answer(partial(build.patched, session, patch))

    @tool(
        "run_experiment",
        WRITE,
        f"Commit {file} and run it for the fixed budget ({task.run.budget_seconds:g} s), then have it scored. The server repeats "
        f"runs by itself until the verdict is decided. Waits up to wait_seconds; it goes on in any case, and {task.get_tool} waits "
        "on. The first run must be the unchanged file, the baseline.",
    )
    async def run_experiment(
        ctx: Context,
        description: Description,
        hypothesis: Hypothesis = None,
        replicate: Replicate = False,
        combine: Combine = None,
        wait_seconds: Wait = None,
    ) -> Annotated[CallToolResult, answers.Result]:
        run = partial(session.run_experiment, description, hypothesis, replicate)
        number, note = await blocking(partial(batch.run_merged, session, combine, description, hypothesis) if combine else run)
        elsewhere = await blocking(partial(batch.tried_elsewhere, session, number))
        return await calls.result(session, ctx, number, wait_seconds, "; ".join(part for part in (note, elsewhere) if part))

    @tool("adopt", WRITE, "Run here, on top of this session's best, a change that another session kept.")
    async def adopt(
        ctx: Context, experiment: Annotated[int, _argument("See history with all", ge=1)], wait_seconds: Wait = None
    ) -> Annotated[CallToolResult, answers.Result]:
        number, note = await blocking(partial(batch.adopt, session, experiment))
        return await calls.result(session, ctx, number, wait_seconds, note)

    @tool(
        "run_batch",
        WRITE,
        "Try several changes of the best at once, each alone, as the machine has room: a wave. keep takes one of them and discards "
        f"the rest. {task.get_tool} answers for all of it.",
    )
    async def run_batch(
        ctx: Context, experiments: Experiments, wait_seconds: Wait = None
    ) -> Annotated[CallToolResult, answers.Result]:
        said = await blocking(partial(batch.run_batch, session, experiments))
        errors = [f"entry {place}: {what}" for place, what in enumerate(said, 1) if isinstance(what, str)]
        if len(errors) == len(said):
            raise NotAllowedError(f"None of the batch was run. {' '.join(errors)}")
        notes = [" ".join(errors).rstrip(".")] if errors else []
        for number in said:
            if isinstance(number, int) and (elsewhere := await blocking(partial(batch.tried_elsewhere, session, number))):
                notes.append(f"experiment {number}: {elsewhere}")
        return await calls.result(session, ctx, None, wait_seconds, "; ".join(notes))

    @tool(
        task.get_tool,
        READ,
        f"State of an experiment; when it is done: {metric}, how it compares with the best, the suggested verdict, where the "
        "time went; on a failure its name and the end of the log.",
        SHOWN,
    )
    async def get_metric(
        ctx: Context, experiment: Number = None, wait_seconds: Wait = None
    ) -> Annotated[CallToolResult, answers.Result]:
        wave = experiment is None and bool(await blocking(lambda: session.state.wave))
        number = None if wave else (await blocking(partial(session.experiment, experiment))).number
        return await calls.result(session, ctx, number, wait_seconds)

    @tool(
        "keep",
        WRITE,
        f"Accept the current experiment as the best. Refused unless {metric} is better beyond luck, or no worse and shorter.",
    )
    async def keep(learned: Learned = None, experiment: Chosen = None) -> Annotated[CallToolResult, answers.Judged]:
        return await calls.answer(partial(build.kept, session, learned, experiment))

    # Not destructive: an experiment stays under its ref, and an edit that never ran is in the answer.
    @tool("discard", WRITE, f"Record the current experiment as not helpful and restore {file} to the best one.")
    async def discard(learned: Learned = None) -> Annotated[CallToolResult, answers.Judged]:
        return await calls.answer(partial(build.discarded, session, learned))

    @tool("status", READ, "Where the loop stands: goal, best score, what is allowed now. Call it first.", SHOWN)
    async def status() -> Annotated[CallToolResult, answers.Status]:
        return await calls.answer(partial(build.status, session))

    @tool("history", READ, "Past experiments in short: counts, the kept ones, the latest ones, what was learned.")
    async def history(search: Search = None, all: Everyone = False) -> Annotated[CallToolResult, answers.History]:
        return await calls.answer(partial(build.history, session, search, all))

    @tool("read_reference", READ, f"Read {PROGRAM}, the task or another read-only file, or an experiment's output or diff.")
    async def read_reference(
        name: Annotated[str, _argument(", ".join(references.references(task)), most=WORDS)],
        start_line: First = None,
        end_line: Last = None,
    ) -> Annotated[CallToolResult, answers.Reference]:
        return await calls.answer(partial(build.reference, session, name, start_line, end_line))

    @tool("stop_experiment", DESTROY, "End the current run early; it is recorded as killed, without a score.")
    async def stop_experiment(ctx: Context, experiment: Stopped = None) -> Annotated[CallToolResult, answers.Result]:
        number = (await blocking(partial(session.stop, number=experiment))).number
        return await calls.result(session, ctx, number)


def _add_resources(server: AnsweringServer, session: Session) -> None:
    @server.resource("autoresearch://program", mime_type="text/markdown")
    async def program() -> str:
        """The human's instructions."""
        return await blocking(partial(references.reference_text, session, PROGRAM))

    @server.resource(_file_uri(session), name=session.task.files.editable, mime_type="text/plain")
    async def editable() -> str:
        """The editable file as it is now."""
        return (await blocking(session.read)).text

    @server.resource(RESULTS, mime_type="text/tab-separated-values")
    async def results() -> str:
        """All experiments: commit, metric, memory, status, description."""
        return await blocking(session.results.text)

    drawn = panel.Night(session)

    @server.resource("autoresearch://night", mime_type="application/json")
    async def night() -> str:
        """What the panel draws."""
        return await blocking(drawn.told)

    @server.resource("autoresearch://experiments/{number}/log", mime_type="text/plain")
    async def experiment_log(number: int) -> str:
        """End of an experiment's output; untrusted data."""
        return await blocking(partial(references.log, session, number))

    @server.resource("autoresearch://experiments/{number}/diff", mime_type="text/x-diff")
    async def experiment_diff(number: int) -> str:
        """What an experiment changed against the best of its time."""
        return await blocking(partial(references.diff, session, number))

    @server.prompt(title="Run the research loop")
    async def research() -> str:
        """The human's instructions and where the loop stands."""
        return await blocking(partial(prompt.research, session))


@asynccontextmanager
async def _beside(session: Session, subscribers: Subscribers, _: object) -> AsyncGenerator[None]:
    """What goes on while the server serves."""
    async with anyio.create_task_group() as tasks, announcing(partial(blocking, partial(_seen, session)), subscribers):
        tasks.start_soon(calls.in_spare_time, CATCH_UP_AFTER, session.recovery.catch_up)
        tasks.start_soon(calls.again_and_again, ADVANCE_EVERY, session.advance)
        if session.task.run.preload:
            tasks.start_soon(calls.again_and_again, READY_EVERY, partial(_get_ready, session))
        tasks.start_soon(calls.beside_the_calls, 0.0, detect)
        tasks.start_soon(calls.beside_the_calls, HEAL_AFTER, session.recovery.restore_refs)
        yield
        tasks.cancel_scope.cancel()


def _get_ready(session: Session) -> None:
    """For the next run, while somebody is at work who may ask for it."""
    called = last_call(session)
    if called is not None and time.time_ns() - called < AT_WORK * 1e9 and not session.done():
        session.runs.get_ready()


def _file_uri(session: Session) -> str:
    return "autoresearch://" + session.task.read_tool.removeprefix("read_")


def _seen(session: Session) -> dict[str, object]:
    """What changes when a resource does."""
    session.refresh()
    return {_file_uri(session): session.read().revision, RESULTS: session.ledger.length}
