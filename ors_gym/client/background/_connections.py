"""What the background's loop does its exchanges with, and how many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ors_gym.client._connection import Link
from ors_gym.client._drivers import AsyncExchange, run_async
from ors_gym.client.http._async_connection import AsyncTransport
from ors_gym.protocol._exchange import Operation

__all__ = ["Channels", "Running"]

T = TypeVar("T")

_IDLE: Final = 90.0
"""Seconds after which unused connections to a server are closed."""
_AT_ONCE: Final = 64


class _Channel:
    """The background's own connections to one server."""

    __slots__ = ("exchange", "idle_since", "transport", "users")

    def __init__(self, link: Link) -> None:
        self.transport: AsyncTransport | None = None
        if link.background_exchange is not None:
            self.exchange: AsyncExchange = link.background_exchange
        else:
            self.transport = AsyncTransport(
                link.base_url, headers=link.headers, limits=link.limits
            )
            self.exchange = self.transport.exchange
        self.users = 0
        self.idle_since = time.monotonic()

    async def aclose(self) -> None:
        """Close the connections, unless they are the user's own."""
        if self.transport is not None:
            await self.transport.aclose()


class Channels:
    """A channel for every server, made when it is needed. Of one loop."""

    def __init__(self) -> None:
        self._channels: dict[int, tuple[Link, _Channel]] = {}

    async def run(self, link: Link, operation: Operation[T]) -> T:
        """Run an operation over the background's own connections.

        Args:
            link: How its server is reached.
            operation: The operation.

        Returns:
            Its result.
        """
        _, channel = self._channels.setdefault(id(link), (link, _Channel(link)))
        channel.users += 1
        try:
            return await run_async(operation, channel.exchange)
        finally:
            channel.users -= 1
            channel.idle_since = time.monotonic()

    async def close_idle(self) -> None:
        """Close the connections to servers that were not asked for a while."""
        stale = time.monotonic() - _IDLE
        for key, (_, channel) in list(self._channels.items()):
            if channel.users == 0 and channel.idle_since < stale:
                del self._channels[key]
                await channel.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for _, channel in self._channels.values():
            await channel.aclose()
        self._channels.clear()


class Running:
    """Tasks under way, of which there are at most 64 at once.

    Args:
        then: Called when one has ended, to start the next.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._then = then

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def has_room(self) -> bool:
        """Say whether one more may start.

        Returns:
            Whether it may.
        """
        return len(self.tasks) < _AT_ONCE

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start one more.

        Args:
            work: What it does.
        """
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._then()
