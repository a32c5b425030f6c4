"""Deletes of sessions that nobody uses (docs/wire.md, points 10, 11 and 14)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import heapq
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._own_connections import (
    BackgroundConnections,
    BoundedTasks,
)
from ors_gym.errors import ORSError
from ors_gym.protocol import _operations as operations

_TIMEOUT: Final = 10.0
_AGAIN_SECONDS: Final = 60.0
"""Seconds until the second delete of a session: by then a constructor that swallowed
the first one is usually over."""


@dataclasses.dataclass(slots=True, order=True)
class _Delete:
    """A session to be deleted."""

    due: float
    session_id: str = dataclasses.field(compare=False)
    server: RemoteServer = dataclasses.field(compare=False)


class Deletes:
    """The sessions that are to be deleted, now or later."""

    def __init__(self, connections: BackgroundConnections) -> None:
        self._connections = connections
        # Finalisers append to it, so it is a queue that needs no lock.
        self._new: deque[_Delete] = deque()
        """Not yet examined: some are due now, others later."""
        self._later: list[_Delete] = []
        """Those that are due later, as a heap; only the loop touches it."""
        self._tasks = BoundedTasks(self.start_due)

    def __bool__(self) -> bool:
        return bool(self._new or self._later or self._tasks)

    def add(self, server: RemoteServer, session_id: str) -> None:
        """Note a session for deletion: no lock, no I/O, safe in a finaliser."""
        self._new.append(_Delete(0.0, session_id, server))

    def add_later(self, server: RemoteServer, session_id: str) -> None:
        """Note a session for deletion in a minute."""
        due = time.monotonic() + _AGAIN_SECONDS
        self._new.append(_Delete(due, session_id, server))

    def start_due(self) -> None:
        """Start as many of the deletes that are due as may run at once."""
        now = time.monotonic()
        while self._tasks.has_room():
            if self._later and self._later[0].due <= now:
                delete = heapq.heappop(self._later)
            elif self._new:
                delete = self._new.popleft()
            else:
                return
            if delete.due > now:
                heapq.heappush(self._later, delete)
            else:
                self._tasks.start(self._send(delete))

    async def delete_all(
        self, others: Iterable[tuple[RemoteServer, str]], timeout: float
    ) -> None:
        """Delete these and all noted sessions, due or not, in ``timeout`` seconds."""
        deletes = [_Delete(0.0, session_id, server) for server, session_id in others]
        deletes += self._later
        self._later.clear()
        while self._new:
            # One by one: a finaliser may add another meanwhile.
            deletes.append(self._new.popleft())
        loop = asyncio.get_running_loop()
        # Two attempts: a process that exits does not wait for a server that is gone.
        tasks = {loop.create_task(self._send(each, timeout, 2)) for each in deletes}
        tasks |= self._tasks.running
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(
        self, delete: _Delete, timeout: float = _TIMEOUT, attempts: int | None = None
    ) -> None:
        operation = operations.delete_session(
            delete.server, delete.session_id, timeout=timeout, attempts=attempts
        )
        # The user's own httpx client may be closed. Then the server ends the session,
        # since nobody pings it.
        with contextlib.suppress(ORSError):
            await self._connections.run(delete.server, operation)
