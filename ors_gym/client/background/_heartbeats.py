"""Pings tell a server that a session is still wanted (docs/wire.md, point 12)."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections import deque
from typing import Final

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._own_connections import (
    BackgroundConnections,
    BoundedTasks,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._server_state import SessionState

_TIMEOUT: Final = 10.0


@dataclasses.dataclass(slots=True)
class _Watched:
    """A session that is kept alive."""

    server: RemoteServer
    state: weakref.ref[SessionState]
    due: float
    waiting: bool = False
    """Whether it is in the queue of those to be pinged."""

    def live_state(self) -> SessionState | None:
        """Return the session's state, unless it is over."""
        state = self.state()
        return None if state is None or state.closed or state.lost else state


class Heartbeats:
    """The sessions that are kept alive; none of them is referred to strongly."""

    def __init__(self, connections: BackgroundConnections) -> None:
        self._connections = connections
        self._watched: dict[str, _Watched] = {}
        self._waiting: deque[_Watched] = deque()
        """Those to be pinged, in the order in which they became due."""
        self._pings = BoundedTasks(self._start_waiting)

    def __bool__(self) -> bool:
        return bool(self._watched or self._pings)

    def watch(self, server: RemoteServer, state: SessionState) -> None:
        # Drawn, so that sessions opened together are not pinged together.
        due = time.monotonic() + server.ping_every * (0.5 + server.hooks.random() / 2)
        self._watched[state.session_id] = _Watched(server, weakref.ref(state), due)

    def unwatch(self, session_id: str) -> None:
        self._watched.pop(session_id, None)

    def start_due(self) -> None:
        """Start the pings that are due, and unwatch the sessions that are over."""
        now = time.monotonic()
        for session_id, watched in list(self._watched.items()):
            if watched.live_state() is None:
                self.unwatch(session_id)
            elif watched.due <= now and not watched.waiting:
                watched.waiting = True
                self._waiting.append(watched)
        self._start_waiting()

    def close_all(self) -> list[tuple[RemoteServer, str]]:
        """Close every open session on this side, and return what is to be deleted."""
        taken = []
        for session_id, watched in list(self._watched.items()):
            state = watched.state()
            if state is not None and not state.closed:
                state.closed = True
                taken.append((watched.server, session_id))
        self._watched.clear()
        return taken

    def _start_waiting(self) -> None:
        """Start as many pings as may run at once; deletes do not hold them up."""
        while self._waiting and self._pings.has_room():
            watched = self._waiting.popleft()
            watched.waiting = False
            state = watched.live_state()
            if state is not None:
                watched.due = time.monotonic() + watched.server.ping_every
                self._pings.start(self._ping(watched.server, state.session_id))

    async def _ping(self, server: RemoteServer, session_id: str) -> None:
        operation = operations.ping(server, session_id, timeout=_TIMEOUT)
        alive = await self._connections.run(server, operation)
        watched = self._watched.get(session_id)
        state = watched.state() if watched is not None else None
        # None means that nobody knows; the server waits 15 minutes for a ping.
        if alive is False and state is not None and not state.closed:
            state.lost = "the server no longer knows it"
            self.unwatch(session_id)
