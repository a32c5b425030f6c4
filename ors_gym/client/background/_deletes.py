"""Deletes of sessions that nobody uses (docs/wire.md, points 10, 11 and 14)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._own_connections import (
    BackgroundConnections,
    WorkByServer,
)
from ors_gym.client.http._failures import has_descriptors
from ors_gym.client.http._pool import close_idle_connections
from ors_gym.errors import ORSError
from ors_gym.protocol import _operations as operations

_TIMEOUT: Final = 10.0
_AGAIN_SECONDS: Final = 60.0
"""Seconds until the second delete of a session: by then a constructor that swallowed
the first one is usually over."""
_REPEAT_SECONDS: Final = 0.1
_GONE_SECONDS: Final = 1.0
"""Seconds without an answer after which a server no longer delays the exit."""
LONGEST_EXIT: Final = 60.0


@dataclasses.dataclass(slots=True, order=True)
class Delete:
    """A session to be deleted."""

    due: float
    number: int
    """Its place among those that are due at the same time."""
    session_id: str = dataclasses.field(compare=False)
    server: RemoteServer = dataclasses.field(compare=False)
    is_opening: bool = dataclasses.field(compare=False, default=False)
    """Whether its /create is under way, so that it may come to exist any time."""


class Exit:
    """The time that the deletes of a process that ends may take together.

    With ``patient`` it is the time without a confirmed delete: thousands of sessions
    take a while, and a server that is gone takes none.
    """

    def __init__(self, timeout: float, *, patient: bool) -> None:
        self._timeout = timeout
        self._patient = patient
        self._began = time.monotonic()
        self._deadline = self._began + timeout
        self._heard: dict[str, float] = {}

    @property
    def remaining(self) -> float:
        """The seconds that are left."""
        return self._deadline - time.monotonic()

    def hear(self, server: RemoteServer) -> None:
        """Note that a server answers."""
        self._heard[server.base_url] = time.monotonic()

    def confirm(self, server: RemoteServer) -> None:
        """Note that a server confirmed a delete."""
        self.hear(server)
        if self._patient:
            longest = self._began + LONGEST_EXIT
            self._deadline = min(time.monotonic() + self._timeout, longest)

    def is_gone(self, server: RemoteServer) -> bool:
        """Tell whether a server has not answered for a while."""
        since = self._heard.get(server.base_url, self._began)
        return time.monotonic() > since + _GONE_SECONDS


class Deletes:
    """The sessions that are to be deleted, now or later."""

    def __init__(self, connections: BackgroundConnections) -> None:
        self._connections = connections
        # Any thread appends to it, so it is a queue that needs no lock.
        self._new: deque[Delete] = deque()
        """Not yet examined: some are due now, others later."""
        self._later: list[Delete] = []
        """Those that are due later, as a heap; only the loop touches it."""
        self._numbers = itertools.count()
        self._work: WorkByServer[Delete] = WorkByServer(self._send)
        self._exit: Exit | None = None
        """What is known of the exit of the process, while it ends."""

    def __bool__(self) -> bool:
        return bool(self._new or self._later or self._work)

    def add(
        self,
        server: RemoteServer,
        session_id: str,
        *,
        again: bool = False,
        is_opening: bool = False,
    ) -> None:
        """Note a session for deletion, and with ``again`` once more in a minute."""
        number = next(self._numbers)
        self._new.append(Delete(0.0, number, session_id, server, is_opening))
        if again:
            due = time.monotonic() + _AGAIN_SECONDS
            self._new.append(Delete(due, number, session_id, server))

    def start_due(self) -> None:
        """Hand the deletes that are due to the work of their servers."""
        now = time.monotonic() if self._exit is None else float("inf")
        while self._new:
            # One by one: another thread may add one meanwhile.
            heapq.heappush(self._later, self._new.popleft())
        while self._later and self._later[0].due <= now:
            delete = heapq.heappop(self._later)
            self._work.put(delete.server, delete)

    async def wait_for(self, server: RemoteServer) -> None:
        """Wait for the deletes that were started at a server."""
        await self._work.wait_for(server)

    async def finish(
        self, collect: Callable[[], bool], timeout: float, *, patient: bool
    ) -> None:
        """Delete all noted sessions, due or not, and what is collected meanwhile.

        ``collect`` adds the sessions that have come up since it was called last, and
        says whether others may follow.
        """
        self._exit = exit_ = Exit(timeout, patient=patient)
        try:
            while (collect() or self) and exit_.remaining > 0:
                if not has_descriptors():
                    close_idle_connections()
                self.start_due()
                await self._work.wait(min(_REPEAT_SECONDS, max(exit_.remaining, 0.0)))
        finally:
            self._exit = None
            await self._work.cancel()

    async def _send(self, delete: Delete) -> None:
        """Delete a session; while the process ends, until that is confirmed."""
        while not await self._try(delete):
            exit_ = self._exit
            # Short of descriptors, it waits until others are done with theirs.
            if has_descriptors() and (exit_ is None or exit_.is_gone(delete.server)):
                return
            await asyncio.sleep(_REPEAT_SECONDS)
        if self._exit is not None:
            self._exit.confirm(delete.server)

    async def _try(self, delete: Delete) -> bool:
        """Delete a session; tell whether the server confirmed it."""
        server, exit_ = delete.server, self._exit
        # The user's own httpx client may be closed. Then the server ends the session,
        # since nobody pings it.
        with contextlib.suppress(ORSError):
            if exit_ is None:
                timeout, attempts = _TIMEOUT, None
            else:
                timeout, attempts = max(exit_.remaining, _REPEAT_SECONDS), 1
                if delete.is_opening and not await self._may_delete_now(delete, exit_):
                    return False
            operation = operations.delete_session(
                server, delete.session_id, timeout=timeout, attempts=attempts
            )
            return await self._connections.run(server, operation)
        return False

    async def _may_delete_now(self, delete: Delete, exit_: Exit) -> bool:
        """Tell whether to delete a session whose /create may still be running.

        True once it exists, or when the time is almost over. The server would confirm
        an earlier delete, without any effect.
        """
        timeout = max(exit_.remaining, _REPEAT_SECONDS)
        ping = operations.ping(delete.server, delete.session_id, timeout=timeout)
        exists = await self._connections.run(delete.server, ping)
        if exists is not None:
            exit_.hear(delete.server)
        # At the last moment it is deleted whether it exists or not.
        return bool(exists) or exit_.remaining < 5 * _REPEAT_SECONDS
