"""The server of a client: its settings, who hears of retries, when it is pinged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ors_gym.client._run_operation import AsyncExchange
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._server_state import ClientSettings, Hooks, Server

_logger: Final = logging.getLogger("ors_gym")


class RemoteServer(Server):
    """What operations take, and how the background reaches the server."""

    def __init__(self, settings: ClientSettings) -> None:
        self.retries = RetrySubscribers(settings.base_url)
        self.round_trips: Subscribers[float] = Subscribers()
        hooks = Hooks(
            on_retry=self.retries,
            on_round_trip=self.round_trips.tell,
            clock=time.monotonic,
        )
        super().__init__(settings, hooks=hooks)
        self.ping_every = 45.0
        """Seconds between two pings of a session (docs/wire.md, point 12: 10 to 60)."""
        self.background_exchange: AsyncExchange | None = None
        """Does the background's exchanges where the user brought connections."""


E = TypeVar("E")


class Subscribers(Generic[E]):
    """Tells those of something who want to know of it."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[E], None]] = {}

    def tell(self, event: E) -> None:
        # A copy: a callback may subscribe or unsubscribe, and so may other threads.
        for callback in list(self._callbacks.values()):
            callback(event)

    def subscribe(self, callback: Callable[[E], None]) -> Callable[[], None]:
        """Add a subscriber and return the function that removes it."""
        # Not the callback itself: the same one may subscribe twice.
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe


class RetrySubscribers(Subscribers[Retry]):
    """Logs each retry and tells the subscribers of it; `tell` leaves out the log."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url

    def __call__(self, retry: Retry) -> None:
        _logger.info(
            "%s: %s again in %.2f s (%s, attempt %d)",
            self._base_url,
            retry.request,
            retry.delay,
            retry.reason,
            retry.attempt,
        )
        self.tell(retry)
