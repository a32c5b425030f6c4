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

from ors_gym.client._connection import Link
from ors_gym.client.background._connections import Channels, Running
from ors_gym.errors import ORSError
from ors_gym.protocol import _operations as operations

__all__ = ["Deletions"]

_TIMEOUT: Final = 10.0
_AGAIN_AFTER: Final = 60.0
"""Seconds until an abandoned session is deleted once more: by then a constructor
that swallowed the first delete is usually over."""


@dataclasses.dataclass(slots=True, order=True)
class _Doomed:
    """A session to be deleted."""

    due: float
    session_id: str = dataclasses.field(compare=False)
    link: Link = dataclasses.field(compare=False)


class Deletions:
    """The sessions that are to be deleted, now or later.

    Args:
        channels: What the deletes travel over.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._doomed: deque[_Doomed] = deque()
        """Those to be deleted now, and those that no look was taken at yet. Finalisers
        add to it, so it is a queue that needs no lock."""
        self._later: list[_Doomed] = []
        """Those to be deleted later: a heap, and the loop's own."""
        self._running = Running(self.reap)

    def __bool__(self) -> bool:
        return bool(self._doomed or self._later or self._running)

    def add(self, link: Link, session_id: str) -> None:
        """Note that a session is to be deleted: no lock, no I/O, safe in a finaliser.

        Args:
            link: How its server is reached.
            session_id: The session's id.
        """
        self._doomed.append(_Doomed(0.0, session_id, link))

    def add_later(self, link: Link, session_id: str) -> None:
        """Note that a session is to be deleted in a minute.

        Args:
            link: How its server is reached.
            session_id: The session's id.
        """
        due = time.monotonic() + _AGAIN_AFTER
        self._doomed.append(_Doomed(due, session_id, link))

    def reap(self) -> None:
        """Start as many of the deletes that are due as may run at once."""
        now = time.monotonic()
        while self._running.has_room():
            if self._later and self._later[0].due <= now:
                doomed = heapq.heappop(self._later)
            elif self._doomed:
                doomed = self._doomed.popleft()
            else:
                return
            if doomed.due > now:
                heapq.heappush(self._later, doomed)
            else:
                self._running.start(self._delete(doomed))

    async def delete_all(
        self, others: Iterable[tuple[Link, str]], timeout: float
    ) -> None:
        """Delete every session, whether it is due or not.

        Args:
            others: Sessions to be deleted besides those that were noted.
            timeout: Seconds for all of them together.
        """
        doomed = [_Doomed(0.0, session_id, link) for link, session_id in others]
        doomed += self._later
        self._later.clear()
        while self._doomed:
            # One by one: a finaliser may add another meanwhile.
            doomed.append(self._doomed.popleft())
        loop = asyncio.get_running_loop()
        # Two attempts: a process that ends does not wait for a server that is gone.
        tasks = {loop.create_task(self._delete(item, timeout, 2)) for item in doomed}
        tasks |= self._running.tasks
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _delete(
        self, doomed: _Doomed, timeout: float = _TIMEOUT, attempts: int | None = None
    ) -> None:
        operation = operations.delete_session(
            doomed.link.wire, doomed.session_id, timeout=timeout, attempts=attempts
        )
        with contextlib.suppress(ORSError):
            # The user's own httpx client may be closed: the server's reaper is left.
            await self._channels.run(doomed.link, operation)
