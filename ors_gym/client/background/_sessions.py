"""The sessions of this process: pinged while in use, handed over to be deleted after.

A session is registered before its /create is sent, so that none is unknown here. One
assignment ends it (``state.closed = True``), or the collection of its state. So an
interrupt cannot leave it half ended, and no finaliser is needed (docs/wire.md, points
11, 12 and 14).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import weakref
from collections.abc import Iterator
from typing import Final

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._own_connections import (
    BackgroundConnections,
    WorkByServer,
)
from ors_gym.errors import ORSError
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._server_state import SessionState

_TIMEOUT: Final = 10.0
_NEVER: Final = float("inf")


@dataclasses.dataclass(slots=True, eq=False)
class Registered:
    """A session that exists, or may exist, on its server."""

    server: RemoteServer
    session_id: str
    state: weakref.ref[SessionState]
    ping_at: float = _NEVER
    """When it is pinged next; never before /create is answered."""
    is_set_up: bool = False
    """Whether its set-up is over. A delete before that may be lost."""
    is_given_up: bool = False
    """Whether it is to be deleted, whatever its state says."""
    deleted_by: float = 0.0
    """Until when whoever closed it waits for the server to confirm its delete."""

    @property
    def is_opening(self) -> bool:
        """Whether nobody knows yet what became of its /create."""
        return self.ping_at == _NEVER

    def live_state(self) -> SessionState | None:
        """Return the session's state, unless it is over."""
        state = self.state()
        return None if state is None or state.closed or state.lost else state

    def is_over(self, now: float) -> bool:
        """Tell whether it is time for the background to delete it."""
        state = self.state()
        if state is None or self.is_given_up:
            return True
        return state.closed and now >= self.deleted_by


class Sessions:
    """The sessions of this process, none of which is referred to strongly.

    Any thread may register, and note what it knows; only the loop pings and takes.
    """

    def __init__(self, connections: BackgroundConnections) -> None:
        self._connections = connections
        self._registered: dict[str, Registered] = {}
        self._pings: WorkByServer[Registered] = WorkByServer(self._ping)

    def __bool__(self) -> bool:
        return bool(self._registered or self._pings)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._registered

    def find(self, session_id: str) -> Registered | None:
        return self._registered.get(session_id)

    def register(self, server: RemoteServer, state: SessionState) -> None:
        """Note a session whose /create is about to be sent."""
        session_id = state.session_id
        self._registered[session_id] = Registered(
            server, session_id, weakref.ref(state)
        )

    def note_open(self, session_id: str) -> None:
        """Note that /create was answered: the session is pinged from now on."""
        found = self.find(session_id)
        if found is not None:
            server = found.server
            # Drawn, so that sessions opened together are not pinged together.
            wait = server.ping_every * (0.5 + server.hooks.random() / 2)
            found.ping_at = time.monotonic() + wait

    def forget(self, session_id: str) -> None:
        """Forget a session that is deleted, or that is not ours."""
        self._registered.pop(session_id, None)

    def ping_due(self) -> None:
        """Start the pings that are due."""
        now = time.monotonic()
        # Its values in one go: other threads register meanwhile.
        for each in list(self._registered.values()):
            if each.ping_at <= now and each.live_state() is not None:
                each.ping_at = now + each.server.ping_every
                self._pings.put(each.server, each)

    async def wait_for(self, server: RemoteServer) -> None:
        """Wait for the pings that were started at a server."""
        await self._pings.wait_for(server)

    def take_over(self) -> Iterator[Registered]:
        """Yield the sessions that are over, which are forgotten with that."""
        now = time.monotonic()
        for each in list(self._registered.values()):
            if each.is_over(now):
                self.forget(each.session_id)
                yield each

    def close_all(self) -> None:
        """Close every session on this side."""
        for each in list(self._registered.values()):
            state = each.state()
            if state is not None:
                state.closed = True
            each.is_given_up = True

    async def _ping(self, session: Registered) -> None:
        if session.live_state() is None:
            return
        operation = operations.ping(
            session.server, session.session_id, timeout=_TIMEOUT
        )
        alive = None
        # The user's own httpx client may be closed.
        with contextlib.suppress(ORSError):
            alive = await self._connections.run(session.server, operation)
        state = session.live_state()
        # None means that nobody knows; the server waits 15 minutes for a ping.
        if alive is False and state is not None:
            state.lost = "the server no longer knows it"
