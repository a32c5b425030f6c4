"""How a client reaches its server: address, headers, and what it may send."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Final, Protocol

from ors_gym.client._drivers import AsyncExchange
from ors_gym.client.http._address import Origin
from ors_gym.errors import InsecureTransportError, InvalidRequestError
from ors_gym.protocol._exchange import Head, Limits, Outcome, Send
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._wire import Wire

__all__ = [
    "AsyncTransportLike",
    "Link",
    "RetrySubscribers",
    "TransportLike",
    "is_secret_header",
]

_logger: Final = logging.getLogger("ors_gym")

_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"}
)
_SECRET_WORDS: Final = ("authorization", "cookie", "key", "token", "secret", "password")


class TransportLike(Protocol):
    """What the blocking client needs of a transport."""

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    def close(self) -> None:
        """Close every connection."""


class AsyncTransportLike(Protocol):
    """What the async client needs of a transport."""

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    async def aclose(self) -> None:
        """Close every connection."""


class Link:
    """A client's configuration, shared with its sessions and the background.

    Args:
        base_url: The server's address.
        api_key: Sent as ``X-API-Key``; the variable ``ORS_API_KEY`` if None.
        headers: Sent with every request.
        timeout: Seconds for a request that is neither a call nor part of set-up.
        allow_insecure: Whether a key or a secret may travel over plain http to
            another machine.
        limits: Bounds on replies.
        repeat_calls_after_429: Whether 429 proves that a call was not run.

    Raises:
        InvalidRequestError: If the address or a header cannot be right.
        InsecureTransportError: If a key would travel over plain http.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        allow_insecure: bool = False,
        limits: Limits | None = None,
        repeat_calls_after_429: bool = True,
    ) -> None:
        origin = Origin(base_url)
        self.base_url = base_url.rstrip("/")
        self.limits = limits or Limits()
        self.headers, secrets = _client_headers(api_key, headers or {})
        self.ping_every = 45.0
        """Seconds between two pings of a session (docs/wire.md, point 12: 10 to 60)."""
        self.background_exchange: AsyncExchange | None = None
        """Does the background's exchanges, where the user brought a transport."""
        secure = allow_insecure or origin.scheme == "https" or _is_loopback(origin.host)
        if secrets and not secure:
            raise InsecureTransportError(
                f"an API key would travel in the clear to {self.base_url}; use https, "
                "or pass allow_insecure=True inside a network that you trust"
            )
        self.retries = RetrySubscribers(self.base_url)
        self.wire = Wire(
            where=self.base_url,
            origin=f"{origin.scheme}://{origin.authority}",
            limits=self.limits,
            timeout=timeout,
            redact=Redactor(secrets),
            secure=secure,
            repeat_calls_after_429=repeat_calls_after_429,
            on_retry=self.retries,
        )

    def __repr__(self) -> str:
        return f"Link({self.base_url!r})"


def _client_headers(
    api_key: str | None, headers: Mapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the headers of every request, and which of their values are secret."""
    own = {"User-Agent": f"ors-gym/{_version()}"}
    api_key = api_key if api_key is not None else os.environ.get("ORS_API_KEY")
    if api_key:
        own["X-API-Key"] = api_key
    for name, value in headers.items():
        if name.lower() in _FRAMING:
            raise InvalidRequestError(f"the header {name!r} is set by the transport")
        own = {key: own[key] for key in own if key.lower() != name.lower()}
        own[name] = value
    checked = Head("GET", "/", tuple(own.items())).headers
    secrets: list[str] = []
    for name, value in checked:
        if is_secret_header(name):
            scheme, _, credentials = value.partition(" ")
            secrets += [value, credentials] if credentials else [scheme]
    return checked, secrets


def _version() -> str:
    try:
        return metadata.version("ors-gym")
    except metadata.PackageNotFoundError:
        # Run from its sources, without being installed.
        return "unknown"


def is_secret_header(name: str) -> bool:
    """Say whether a header's value is a secret, by its name.

    Args:
        name: The header's name.

    Returns:
        Whether it is hidden in messages and kept off plain http.

    Example:
        >>> is_secret_header("Authorization"), is_secret_header("X-Deployment")
        (True, False)
    """
    return any(word in name.lower() for word in _SECRET_WORDS)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RetrySubscribers:
    """Logs each retry and tells those who want to know of it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._callbacks: dict[object, Callable[[Retry], None]] = {}

    def __call__(self, retry: Retry) -> None:
        _logger.info(
            "%s: %s again in %.2f s (%s, attempt %d)",
            self._where,
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
