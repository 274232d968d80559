"""Resources that clients subscribe to: what changes is announced, whoever changed it, another server too."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

ANNOUNCE_EVERY = 0.5  # seconds between looks for changes, while anybody subscribes

Look = Callable[[], Awaitable[dict[str, object]]]
"""Gives for each resource's URI something that changes when its content does."""


class Subscribers(InMemorySubscriptionBus):
    """The SDK's bus, which also knows whether anybody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = anyio.Event()

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self.listening.set()
        return super().subscribe(listener)


@asynccontextmanager
async def announcing(look: Look, subscribers: Subscribers) -> AsyncGenerator[None]:
    """While it is open, tells subscribers of every change that `look` sees."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_announce, look, subscribers)
        yield
        tasks.cancel_scope.cancel()


async def _announce(look: Look, subscribers: Subscribers) -> None:
    await subscribers.listening.wait()
    known: dict[str, object] = {}
    while True:
        try:
            seen = await look()
        except Exception:  # a client that reads the resource is told why, and the server logs it
            seen = known
        for uri, content in seen.items():
            if known.get(uri, content) != content:
                await subscribers.publish(ResourceUpdated(uri))
        known = seen
        await anyio.sleep(ANNOUNCE_EVERY)
