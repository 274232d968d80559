"""A scripted model: an HTTP endpoint that speaks to a real coding agent as its model would, and plays a list of tool calls.

A script is a generator. It yields the `Call` that the model makes next, is sent what the agent then shows the model as the
call's result, and ends when the model would end its turn. Three wire formats: Anthropic's Messages (Claude Code), OpenAI's
Responses (Codex) and Google's generateContent (Gemini CLI).
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SERVER = "autoresearch"
LOOK, LOOKS = "look_", 20  # calls of a model that does not see our tools yet, and how many of them it makes
LOOK_SECONDS = 0.5  # that such a model thinks before each
NEVER = 0  # in place of an HTTP status: no answer comes


@dataclass(frozen=True)
class Call:
    tool: str
    """Name at the MCP server, without the client's prefix; another name is passed as it is."""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What the model was shown of a call's result."""

    text: str
    is_error: bool


Script = Generator[Call, Shown, None]


@dataclass
class Model:
    """The play's state, and everything the agent sent while it ran."""

    script: Script
    server: str | None = SERVER
    """The MCP server whose tools the script calls; None for a script that calls the agent's own tools."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Tools of the MCP server as the model saw them in its latest request, by their name at the server."""
    shown: list[tuple[Call, Shown]] = field(default_factory=list)
    error: BaseException | None = None
    looks: int = 0
    """Turns in which our tools were not there yet."""
    last_words: str = "Done."
    _calls: list[Call] = field(default_factory=list)
    _answered: int = 0
    _over: bool = False

    def turn(self, results: list[Shown]) -> Call | None:
        """The next call after `results`, those of all calls so far; None when the model has nothing more to say."""
        if self._over:
            return None
        try:
            if not self._calls:
                call = next(self.script)
            elif len(results) == self._answered:  # the agent asked again without a new result: it lost our last answer
                return self._calls[-1]
            else:
                self._answered = len(results)
                self.shown.append((self._calls[-1], results[-1]))
                call = self.script.send(results[-1])
        except StopIteration:
            self._over = True
            return None
        except BaseException as error:  # what the script asserts; the test raises it again, the agent sees the end of a turn
            self._over, self.error = True, error
            return None
        self._calls.append(call)
        return call

    @property
    def finished(self) -> bool:
        return self._over


@dataclass
class Night:
    """What the model does in each start of an agent, which the prompt numbers: plays a script to its end and says its last word,
    answers every request with an HTTP status, or never answers.
    """

    acts: list[Model | int]

    def act(self, request: dict[str, Any]) -> Model | int:
        """Of the start that a request is from; those without the prompt (titles, summaries) get a word."""
        number = re.search(r"This is start (\d+) of the night", json.dumps(request))
        return self.acts[min(int(number[1]), len(self.acts)) - 1] if number else Model(iter(()))


# --- Anthropic Messages -----------------------------------------------------------------------------------------------


def anthropic_turn(model: Model, request: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The stream's events as (name, data). Requests without our tools (titles, summaries) get a word."""
    prefix = f"mcp__{model.server}__" if model.server else ""
    mine = {tool["name"].removeprefix(prefix): tool for tool in request.get("tools") or [] if tool["name"].startswith(prefix)}
    call, looking = None, False
    if not mine and any(tool["name"] == "ToolSearch" for tool in request.get("tools") or []):
        looking = model.looks < LOOKS
        model.looks += 1
    elif mine:
        model.tools = mine
        model.requests.append(request)
        results = [
            Shown(_joined(block.get("content")), bool(block.get("is_error")))
            for message in request["messages"]
            if message["role"] == "user" and isinstance(message["content"], list)
            for block in message["content"]
            if block["type"] == "tool_result" and not block["tool_use_id"].startswith(LOOK)
        ]
        call = model.turn(results)
    usage = {"input_tokens": 1, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": request.get("model"), "content": []}
    yield "message_start", {"message": head | {"stop_reason": None, "stop_sequence": None, "usage": usage}}
    if looking:  # the server is still starting: a model searches, and finds it at a later turn
        block = {"type": "tool_use", "id": f"{LOOK}{model.looks}", "name": "ToolSearch", "input": {}}
        yield "content_block_start", {"index": 0, "content_block": block}
        search = {"type": "input_json_delta", "partial_json": json.dumps({"query": SERVER})}
        yield "content_block_delta", {"index": 0, "delta": search}
    elif call is None:
        yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": model.last_words}}
    else:
        name = prefix + call.tool if call.tool in mine else call.tool
        block = {"type": "tool_use", "id": f"toolu_{len(model._calls)}", "name": name, "input": {}}
        yield "content_block_start", {"index": 0, "content_block": block}
        yield (
            "content_block_delta",
            {
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)},
            },
        )
    yield "content_block_stop", {"index": 0}
    reason = "end_turn" if call is None and not looking else "tool_use"
    yield "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    yield "message_stop", {}


# --- OpenAI Responses -------------------------------------------------------------------------------------------------


def openai_turn(model: Model, request: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The stream's events as (name, data)."""
    offered = request.get("tools") or []
    if model.server:
        namespace = next((tool["name"] for tool in offered if model.server in tool.get("name", "")), None)
        offered = [tool for space in offered if space.get("name") == namespace for tool in space.get("tools", [])]
    else:
        namespace = None
    mine = {tool["name"]: tool for tool in offered if "name" in tool}
    outputs = [item for item in request["input"] if item.get("type") == "function_call_output"]
    call = None
    if mine:
        model.tools = mine
        model.requests.append(request)
        outputs = [item for item in outputs if not item["call_id"].startswith(LOOK)]
        call = model.turn([Shown(_joined(item["output"]), False) for item in outputs])
    head = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    yield "response.created", {"response": head}
    if not mine and model.looks < LOOKS:  # Codex leaves out a server that is still starting: a model looks around meanwhile
        model.looks += 1
        item: dict[str, Any] = {"type": "function_call", "id": f"fc_{LOOK}{model.looks}", "call_id": f"{LOOK}{model.looks}"}
        item |= {"name": "list_mcp_resources", "arguments": "{}"}
    elif call is None:
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": model.last_words}],
        }
    else:
        item = {
            "type": "function_call",
            "id": f"fc_{len(model._calls)}",
            "call_id": f"call_{len(model._calls)}",
            "name": call.tool,
            "arguments": json.dumps(call.arguments),
        }
        if namespace and call.tool in mine:
            item["namespace"] = namespace
    yield "response.output_item.done", {"output_index": 0, "item": item}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    yield "response.completed", {"response": head | {"status": "completed", "output": [item], "usage": usage}}


# --- Gemini generateContent -------------------------------------------------------------------------------------------


def gemini_turn(model: Model, request: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The stream's one chunk, which has no name. Requests without our tools get a word."""
    prefix = f"mcp_{model.server}_" if model.server else ""
    declared = [tool for group in request.get("tools") or [] for tool in group.get("functionDeclarations", [])]
    mine = {tool["name"].removeprefix(prefix): tool for tool in declared if tool["name"].startswith(prefix)}
    call = None
    if mine:
        model.tools = mine
        model.requests.append(request | {"tools": declared})
        parts = [part for content in request["contents"] for part in content["parts"]]
        responses = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
        call = model.turn([Shown(str(said.get("output") or said.get("error")), "error" in said) for said in responses])
    name = prefix + call.tool if call and call.tool in mine else call.tool if call else ""
    part = {"functionCall": {"name": name, "args": call.arguments}} if call else {"text": model.last_words}
    candidate = {"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    yield "", {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}


def _joined(content: Any) -> str:
    """Text of a result, which is a string or a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", f"[{block.get('type')}]") for block in content or [])


def _event(name: str, data: dict[str, Any]) -> str:
    """One event of a stream, which has a name in two of the formats."""
    return f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n" if name else f"data: {json.dumps(data)}\n\n"


async def _refusal(status: int) -> Response:
    """An error as providers word it; none at all for NEVER."""
    if status == NEVER:
        await anyio.sleep_forever()
    kind, message = {429: ("rate_limit_error", "Too many requests"), 529: ("overloaded_error", "Overloaded")}[status]
    return JSONResponse({"type": "error", "error": {"type": kind, "message": message, "code": status}}, status)


# --- the HTTP side ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def endpoint(play: Model | Night) -> AsyncIterator[str]:
    """Serves the model on a free port of 127.0.0.1; yields the URL."""

    def route(turn: Callable[[Model, dict[str, Any]], Iterable[tuple[str, dict[str, Any]]]]):
        async def answer(request: Request) -> Response:
            body = await request.json()
            model = play.act(body) if isinstance(play, Night) else play
            if isinstance(model, int):
                return await _refusal(model)
            looks = model.looks
            events = [_event(name, data) for name, data in turn(model, body)]
            if model.looks > looks:
                await anyio.sleep(LOOK_SECONDS)
            return Response("".join(events), media_type="text/event-stream")

        return answer

    async def count(_: Request) -> Response:
        return JSONResponse({"input_tokens": 1})

    async def other(_: Request) -> Response:
        return JSONResponse({})

    routes = [
        Route("/v1/messages", route(anthropic_turn), methods=["POST"]),
        Route("/v1/messages/count_tokens", count, methods=["POST"]),
        Route("/v1/responses", route(openai_turn), methods=["POST"]),
        Route("/v1beta/models/{call}", route(gemini_turn), methods=["POST"]),
        Route("/{path:path}", other, methods=["GET", "POST", "HEAD"]),
    ]
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
