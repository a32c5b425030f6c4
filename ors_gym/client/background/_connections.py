"""The connections of the background: its own, so that no call waits for a ping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ors_gym.client._connection import Link
from ors_gym.client._drivers import AsyncExchange, run_async
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.protocol._exchange import Operation

__all__ = ["BackgroundConnections", "BoundedTasks"]

T = TypeVar("T")

_IDLE_SECONDS: Final = 90.0
_MOST_TASKS: Final = 64


class BackgroundConnections:
    """Runs operations; it opens connections to a server when first asked for it."""

    def __init__(self) -> None:
        self._servers: dict[int, _Server] = {}

    async def run(self, link: Link, operation: Operation[T]) -> T:
        """Run an operation to its end."""
        server = self._servers.get(id(link))
        if server is None:
            server = self._servers[id(link)] = _Server(link)
        server.users += 1
        try:
            return await run_async(operation, server.exchange)
        finally:
            server.users -= 1
            server.idle_since = time.monotonic()

    async def close_idle(self) -> None:
        """Close the connections to servers that were not asked for a while."""
        oldest = time.monotonic() - _IDLE_SECONDS
        for key, server in list(self._servers.items()):
            if server.users == 0 and server.idle_since < oldest:
                del self._servers[key]
                await server.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for server in self._servers.values():
            await server.aclose()
        self._servers.clear()


class _Server:
    """The background's connections to one server."""

    def __init__(self, link: Link) -> None:
        # Referred to, since its id is the key.
        self.link = link
        self._pool: AsyncConnectionPool | None = None
        if link.background_exchange is not None:
            # Only the transport that the user brought may know the way.
            self.exchange: AsyncExchange = link.background_exchange
        else:
            self._pool = AsyncConnectionPool(
                link.base_url, headers=link.headers, limits=link.limits
            )
            self.exchange = self._pool.exchange
        self.users = 0
        self.idle_since = time.monotonic()

    async def aclose(self) -> None:
        """Close the connections, unless they are the user's own."""
        if self._pool is not None:
            await self._pool.aclose()


class BoundedTasks:
    """Tasks on the running loop, of which at most 64 run at once.

    ``then`` is called whenever one has ended, to start the next.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._then = then

    def __bool__(self) -> bool:
        return bool(self.running)

    def has_room(self) -> bool:
        """Tell whether one more may start."""
        return len(self.running) < _MOST_TASKS

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start one more."""
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._then()
