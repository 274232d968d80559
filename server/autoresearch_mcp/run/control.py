"""The run's half of the talk: one JSON object a line over an inherited socket. Everything on it comes from untrusted code.

{"op": "declare"}  the file by which the run commits itself is there; {"marks": {name: text}} once it is accepted
{"op": "data"}     the training files as read-only descriptors and {"files": [...], "budget": seconds}; the first starts the budget
{"op": "trained"}  training is over; what else the message says is kept for the scoring command
{"op": "submit"}   {"score": number}, once; the result is on record by then
Anything else, and whatever is not allowed now, is answered {"error": text}. A line has a bounded length; nothing here is trusted,
counted or shown.
"""

import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from anyio.abc import UNIXSocketStream

from autoresearch_mcp.errors import NotAllowedError, RunFailedError

MESSAGE_BYTES = 1 << 23  # what a model of 20,000 tensors needs to name the hash of each


@dataclass
class Handover:
    """Training data: the names of the files and a descriptor for each, which whoever sends them closes."""

    files: list[str]
    descriptors: list[int]
    budget: float


class Requests(Protocol):
    """What a run may ask for. Each raises NotAllowedError where the run may go on without it, RunFailedError where that ends it."""

    async def declare(self) -> dict[str, str]: ...

    async def data(self) -> Handover: ...

    async def trained(self, said: dict[str, Any]) -> None: ...

    async def submit(self) -> float: ...


async def serve(ours: socket.socket, requests: Requests) -> None:
    """Answers until the run closes its end, or sends a line without end."""
    async with await UNIXSocketStream.from_socket(ours) as stream:
        try:
            async for message in messages(stream):
                await _answer(stream, message, requests)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


async def _answer(stream: UNIXSocketStream, message: Any, requests: Requests) -> None:
    try:
        match message:
            case {"op": "declare"}:
                await stream.send(line(marks=await requests.declare()))
            case {"op": "data"}:
                await _send(stream, await requests.data())
            case {"op": "trained"}:
                await requests.trained(message)
                await stream.send(b"{}\n")
            case {"op": "submit"}:
                await stream.send(line(score=await requests.submit()))
            case _:
                raise NotAllowedError("unknown request; a run declares, asks for data, says that it has trained, and submits once")
    except NotAllowedError as error:
        await stream.send(line(error=str(error)))
    except RunFailedError as failed:
        await stream.send(line(error=f"{failed.failure}: {failed.reason}"))


async def _send(stream: UNIXSocketStream, handover: Handover) -> None:
    try:
        await stream.send_fds(line(files=handover.files, budget=handover.budget), handover.descriptors)
    finally:
        for descriptor in handover.descriptors:
            os.close(descriptor)


def line(**content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


async def messages(stream: UNIXSocketStream) -> AsyncIterator[Any]:
    """JSON values, one a line; nonsense comes out as None, and a line without end ends the talk."""
    buffer = b""
    while len(buffer) < MESSAGE_BYTES:
        try:
            buffer += await stream.receive(1 << 16)
        except anyio.EndOfStream:
            return
        while b"\n" in buffer:
            message, buffer = buffer.split(b"\n", 1)
            try:
                yield json.loads(message)
            except (ValueError, RecursionError):
                yield None
