"""What the blocking and the async connections to a server have in common."""

from __future__ import annotations

import abc
import ssl
from collections.abc import Sequence

from ors_gym.client.dialing import default_ssl_context
from ors_gym.client.heads import HeadReader
from ors_gym.client.origin import Origin
from ors_gym.client.pool import DEFAULT_LIMITS, forget_after_fork
from ors_gym.client.request_writer import RequestWriter
from ors_gym.protocol.limits import Limits

__all__ = ["PooledConnections"]


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
        forget_after_fork(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.origin.scheme}://{self.origin}')"

    @abc.abstractmethod
    def _reset(self) -> None:
        """Begin with an empty pool."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop the connections of the parent process, in a child that was forked."""
