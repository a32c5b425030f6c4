"""The idle connections of a pool: how old one may be, and which is used next."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from ors_gym.client.http._http1 import ReplyReader

__all__ = ["IdleConnections"]

_KEPT_SECONDS: Final = 60.0
"""Seconds after which an idle connection serves nothing any more."""


class _Idle(Protocol):
    """A connection between two exchanges."""

    last_byte: float
    """When the last byte of its last reply came, on the clock of `time.monotonic`."""
    reader: ReplyReader


C = TypeVar("C", bound=_Idle)


class IdleConnections(Generic[C]):
    """The idle connections to one server; the one used last is used next.

    So as few as possible stay warm, and the others age until ``close`` gets them.
    Threads share it without a lock: the ends of a deque are atomic.
    """

    def __init__(self, close: Callable[[C], None]) -> None:
        self._close = close
        self._idle: collections.deque[C] = collections.deque()

    def take(self, now: float, reuse_within: float) -> C | None:
        """Take the connection used last, if it is young enough for the request.

        The server may close an idle connection at any moment, and a call lost that way
        looks like a lost reply. So a request says how many seconds after its last byte
        a connection may carry it (docs/wire.md, point 6).
        """
        idle = self._idle
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            age = now - connection.last_byte
            if age > connection.reader.idle_seconds:
                # By its Keep-Alive header the server may be closing it just now.
                self._close(connection)
            elif age <= reuse_within:
                return connection
            else:
                # The others are older still. The new connection takes the place of the
                # oldest, or a session that thinks for long would pile them up.
                idle.append(connection)
                self.close_oldest()
                return None

    def put(self, connection: C) -> None:
        """Put a connection back after an exchange."""
        idle = self._idle
        idle.append(connection)
        try:
            while idle[0].last_byte < connection.last_byte - _KEPT_SECONDS:
                self.close_oldest()
        except IndexError:
            # Another thread has taken the last one.
            return

    def close_oldest(self) -> bool:
        """Close the connection that was idle longest, and tell if there was one."""
        try:
            connection = self._idle.popleft()
        except IndexError:
            return False
        self._close(connection)
        return True
