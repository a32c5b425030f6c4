"""The server of a client: what the user chose, and how the background reaches it."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Final, Generic, TypeVar

from ors_gym.client._run_operation import AsyncExchange
from ors_gym.client.http._address import Origin
from ors_gym.errors import InsecureTransportError, InvalidRequestError
from ors_gym.protocol._exchange import Head, Limits
from ors_gym.protocol._redaction import Redactor, hide, secrets_of_header
from ors_gym.protocol._retries import Retry
from ors_gym.protocol._server_state import ClientSettings, Hooks, Server

_logger: Final = logging.getLogger("ors_gym")
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"}
)
_SECRET_WORDS: Final = ("authorization", "cookie", "key", "token", "secret", "password")


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


def make_settings(
    base_url: str,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    trust_env: bool = False,
    allow_insecure: bool = False,
    limits: Limits | None = None,
    share_api_key: bool = False,
    repeat_calls_after_429: bool = True,
) -> ClientSettings:
    """Make settings of the arguments of a client; see `ORSClient`."""
    api_key, headers = hide(api_key), hide(headers)
    origin = Origin(base_url)
    base_url = base_url.rstrip("/")
    sent, secrets = _client_headers(api_key, headers or {})
    secure = allow_insecure or origin.scheme == "https" or origin.is_loopback
    if secrets and not secure:
        # docs/wire.md, point 19.
        raise InsecureTransportError(
            f"an API key would travel in the clear to {base_url}; use https, or pass "
            "allow_insecure=True inside a network that you trust"
        )
    return ClientSettings(
        base_url=base_url,
        origin=f"{origin.scheme}://{origin.authority}",
        headers=sent,
        timeout=timeout,
        trust_env=trust_env,
        secure=secure,
        limits=limits or Limits(),
        redact=Redactor(secrets),
        share_api_key=share_api_key,
        repeat_calls_after_429=repeat_calls_after_429,
    )


def _client_headers(
    api_key: str | None, headers: Mapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the headers of every request, and which of their values are secret."""
    own = {"User-Agent": f"ors-gym/{find_version()}"}
    if api_key is None:
        api_key = hide(os.environ.get("ORS_API_KEY"))
    if api_key:
        own["X-API-Key"] = api_key
    for name, value in headers.items():
        if name.lower() in _FRAMING:
            raise InvalidRequestError(f"the header {name!r} is set by the transport")
        own = {key: own[key] for key in own if key.lower() != name.lower()}
        own[name] = value
    checked = Head("GET", "/", tuple(own.items())).headers
    secrets = [
        part
        for name, value in checked
        if is_secret_header(name)
        for part in secrets_of_header(value)
    ]
    return checked, hide(secrets)


@functools.cache
def find_version() -> str:
    """Return the version of ors-gym that is installed."""
    try:
        return metadata.version("ors-gym")
    except metadata.PackageNotFoundError:
        # Run from its sources, without being installed.
        return "unknown"


def is_secret_header(name: str) -> bool:
    """Return whether a header's value is kept out of messages and off plain http."""
    return any(word in name.lower() for word in _SECRET_WORDS)
