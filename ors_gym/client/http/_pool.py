"""Which idle connection may carry which request."""

from __future__ import annotations

import abc
import collections
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from ors_gym.client._fork import register_for_fork
from ors_gym.client.http._address import Origin, default_ssl_context
from ors_gym.client.http._http1 import HeadReader, ReplyReader, RequestWriter
from ors_gym.protocol._exchange import Limits

__all__ = [
    "DEFAULT_LIMITS",
    "FreeList",
    "Pooled",
    "PooledConnections",
]

DEFAULT_LIMITS: Final = Limits()
"""The limits of a transport that was given none."""

_KEPT_SECONDS: Final = 60.0


class Pooled(Protocol):
    """A connection as the free list sees it."""

    last_byte: float
    """When the last byte of its last reply came, on the clock of `time.monotonic`."""
    reader: ReplyReader
    """What reads its replies."""


C = TypeVar("C", bound=Pooled)


class FreeList(Generic[C]):
    """The idle connections of one origin; the one used last is used next.

    So the fewest are kept warm, and the others age and are closed. Threads may share
    it without a lock: a deque's ends are atomic.

    Args:
        close: Closes a connection that is too old for anything.
    """

    __slots__ = ("_close", "_free")

    def __init__(self, close: Callable[[C], None]) -> None:
        self._close = close
        self._free: collections.deque[C] = collections.deque()

    def __len__(self) -> int:
        return len(self._free)

    def take(self, now: float, reuse_within: float) -> C | None:
        """Take the connection used last, if it is young enough (docs/wire.md, point 6).

        Args:
            now: The time, on the clock of `time.monotonic`.
            reuse_within: Seconds since its last byte after which a connection may not
                carry the request; a server's ``Keep-Alive: timeout=N`` lowers it.

        Returns:
            The connection, or None to open a new one.
        """
        free = self._free
        while True:
            try:
                connection = free.pop()
            except IndexError:
                return None
            age = now - connection.last_byte
            if age > connection.reader.idle_seconds:
                self._close(connection)
            elif age <= reuse_within:
                return connection
            else:
                # The others are older still. A new connection takes the place of the
                # oldest, or a session that is slow to think would pile them up.
                free.append(connection)
                self.close_oldest()
                return None

    def give(self, connection: C) -> None:
        """Put a connection back after an exchange.

        Args:
            connection: The connection, its `last_byte` up to date.
        """
        free = self._free
        free.append(connection)
        try:
            while free[0].last_byte < connection.last_byte - _KEPT_SECONDS:
                self.close_oldest()
        except IndexError:
            # Another thread has taken the last one.
            return

    def close_oldest(self) -> bool:
        """Close the connection that was idle longest.

        Returns:
            Whether there was one.
        """
        try:
            connection = self._free.popleft()
        except IndexError:
            return False
        self._close(connection)
        return True


class PooledConnections(abc.ABC):
    """Where connections lead, what is sent over each, and what they are bounded by.

    A forked child starts with an empty pool and leaves its parent's alone.

    Args:
        base_url: The server; its path comes before each target.
        headers: Header lines of every request.
        limits: Bounds on each reply, and on open connections.
        connect_timeout: Seconds for a connection to come about, waiting for a free
            place in the pool and TLS included.
        ssl_context: For https, instead of the one that all transports share.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = Origin(base_url)
        self._writer = RequestWriter(self.origin, headers)
        self._limits = limits
        self._connect_timeout = connect_timeout
        if self.origin.scheme == "https" and ssl_context is None:
            ssl_context = default_ssl_context()
        self._ssl_context = ssl_context
        self._heads = HeadReader()
        self._closed = False
        self._reset()
        register_for_fork(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.origin.scheme}://{self.origin}')"

    @abc.abstractmethod
    def _reset(self) -> None:
        """Begin with an empty pool."""

    @abc.abstractmethod
    def reset_after_fork(self) -> None:
        """Drop the connections of the parent process, in a child that was forked."""
