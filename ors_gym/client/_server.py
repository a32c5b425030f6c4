"""The server of a client, as its sessions and the background reach it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ors_gym.client._run_operation import AsyncExchange
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._server import ClientSettings, Hooks, Server

__all__ = ["RemoteServer", "RetrySubscribers"]

_logger: Final = logging.getLogger("ors_gym")


class RemoteServer(Server):
    """What operations take, and how the background reaches the server."""

    def __init__(self, settings: ClientSettings) -> None:
        self.retries = RetrySubscribers(settings.base_url)
        super().__init__(settings, hooks=Hooks(on_retry=self.retries))
        self.ping_every = 45.0
        """Seconds between two pings of a session (docs/wire.md, point 12: 10 to 60)."""
        self.background_exchange: AsyncExchange | None = None
        """Does the background's exchanges where the user brought connections."""


class RetrySubscribers:
    """Logs each retry and tells those who want to know of it."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._callbacks: dict[object, Callable[[Retry], None]] = {}

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

    def tell(self, retry: Retry) -> None:
        """Tell the subscribers, without a line in the log."""
        # A copy: a callback may subscribe or unsubscribe, and so may other threads.
        for callback in list(self._callbacks.values()):
            callback(retry)

    def subscribe(self, callback: Callable[[Retry], None]) -> Callable[[], None]:
        """Add a subscriber and return the function that removes it."""
        # Not the callback itself: the same one may subscribe twice.
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe
