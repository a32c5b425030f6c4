"""Our connections for users of httpx: ``httpx.Client(transport=HTTPTransport())``."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Final, Generic, TypeVar

import httpx

from ors_gym._system import HAS_OWN_CONNECTIONS
from ors_gym.client.http._address import Origin
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import DEFAULT_LIMITS, ConnectionPool
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import (
    CALL_REUSE_WITHIN,
    Failure,
    Head,
    Headers,
    Limits,
    Outcome,
    Send,
)

P = TypeVar("P", ConnectionPool, AsyncConnectionPool)

# httpx sets them for its own connections; ours write what belongs there.
_SET_BY_THE_CONNECTION: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_UNTRUE_ONCE_DECODED: Final = (
    b"content-encoding",
    b"content-length",
    b"transfer-encoding",
)
_ERRORS: Final[dict[Failure, type[httpx.TransportError]]] = {
    Failure.CONNECT: httpx.ConnectError,
    Failure.TLS: httpx.ConnectError,
    Failure.RESET: httpx.ReadError,
    Failure.STALL: httpx.ReadTimeout,
    Failure.TIMEOUT: httpx.ReadTimeout,
    Failure.PROTOCOL: httpx.RemoteProtocolError,
    Failure.LIMIT: httpx.RemoteProtocolError,
}


class _BaseTransport(Generic[P]):
    """A pool for each server, made by `_make_pool` when the server is first asked."""

    _make_pool: type[P]

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        reuse_within: float = CALL_REUSE_WITHIN,
    ) -> None:
        if not HAS_OWN_CONNECTIONS:
            raise InvalidRequestError(
                f"{type(self).__name__} needs poll(), which this system does not have; "
                "use the transport of httpx in its place"
            )
        self._options: dict[str, Any] = {
            "limits": limits,
            "connect_timeout": connect_timeout,
            "ssl_context": ssl_context,
        }
        self._reuse_within = reuse_within
        self._pools: dict[str, P] = {}

    def _prepare(self, request: httpx.Request, body: bytes) -> tuple[P, Send, _Reply]:
        """Return the pool for a request, the exchange, and its sink."""
        if request.method == "HEAD":
            raise httpx.UnsupportedProtocol("HEAD is not supported", request=request)
        url = request.url
        lines = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers.raw
        ]
        try:
            head = Head(
                request.method,
                url.raw_path.decode("latin-1"),
                [
                    line
                    for line in lines
                    if line[0].lower() not in _SET_BY_THE_CONNECTION
                ],
            )
            server = f"{url.scheme}://{url.netloc.decode('ascii')}"
            Origin(server)
        except InvalidRequestError as error:
            raise httpx.UnsupportedProtocol(str(error), request=request) from error
        pool = self._pools.get(server)
        if pool is None:
            made = self._make_pool(server, **self._options)
            # Another thread may have been faster.
            pool = self._pools.setdefault(server, made)
        reply = _Reply(request.extensions.get("timeout", {}).get("read"))
        has_body = body or "content-length" in request.headers
        content = body if has_body else None
        return pool, Send(head, content, reply, math.inf, self._reuse_within), reply


class HTTPTransport(_BaseTransport[ConnectionPool], httpx.BaseTransport):
    """The connections of `ORSClient` for an `httpx.Client`, to any number of servers.

    It streams replies, bounds them, and stays as fast with hundreds of connections.
    There is no HEAD, no HTTP/2 and no proxy. Of httpx's timeouts it heeds ``read``, as
    the seconds without a byte.

    Args:
        limits: Bounds on each reply, and on the connections to each server.
        connect_timeout: Seconds for a connection to come about, waiting for a free
            place in the pool and the TLS handshake included.
        ssl_context: Verifies https servers; by default with the system's certificates.
        reuse_within: Seconds after its last byte for which a connection is used again.

    Raises:
        InvalidRequestError: If the system has no ``poll``, as Windows has none.

    Example:
        >>> import httpx
        >>> from ors_gym.client import HTTPTransport
        >>> from ors_gym.server import embedded_base_url
        >>> with httpx.Client(transport=HTTPTransport()) as client:
        ...     reply = client.get(f"{embedded_base_url()}/list_environments")
        >>> reply.status_code, "math" in reply.json()
        (200, True)
    """

    _make_pool = ConnectionPool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.BaseTransport`."""
        pool, send, reply = self._prepare(request, request.read())
        outcomes = pool.stream(send)
        for outcome in outcomes:
            _raise_failure(outcome, request)
            if reply.status:
                break
        return _respond(reply, _Stream(outcomes, reply, request))

    def close(self) -> None:
        """Close every connection."""
        for pool in list(self._pools.values()):
            pool.close()


class AsyncHTTPTransport(_BaseTransport[AsyncConnectionPool], httpx.AsyncBaseTransport):
    """The connections of `AsyncORSClient` for an `httpx.AsyncClient`.

    The async twin of `HTTPTransport`, with the same arguments and rules. It runs on
    asyncio.

    Example:
        >>> import asyncio
        >>> import httpx
        >>> from ors_gym.client import AsyncHTTPTransport
        >>> from ors_gym.server import embedded_base_url
        >>> async def ask(url):
        ...     async with httpx.AsyncClient(transport=AsyncHTTPTransport()) as client:
        ...         return (await client.get(url)).status_code
        >>> asyncio.run(ask(f"{embedded_base_url()}/list_environments"))
        200
    """

    _make_pool = AsyncConnectionPool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.AsyncBaseTransport`."""
        pool, send, reply = self._prepare(request, await request.aread())
        exchange = asyncio.create_task(pool.exchange(send))
        stream = _AsyncStream(exchange, reply, request)
        try:
            while not reply.status and not exchange.done():
                await stream.wait()
        except BaseException:
            await stream.aclose()
            raise
        if not reply.status:
            _raise_failure(exchange.result(), request)
        return _respond(reply, stream)

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in list(self._pools.values()):
            await pool.aclose()


class _Reply:
    """A sink that keeps a reply until httpx takes it."""

    def __init__(self, idle_timeout: float | None) -> None:
        self.idle_timeout = idle_timeout
        self.status = 0
        self.headers: Headers = ()
        self._pieces: list[bytes] = []
        self.changed = asyncio.Event()
        """Set whenever something came; only the async transport waits for it."""

    def start(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self.changed.set()

    def feed(self, data: bytes) -> bool:
        """Take content; more is always welcome."""
        self._pieces.append(data)
        self.changed.set()
        return False

    def take(self) -> bytes:
        """Return what came since the last time."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.changed.clear()
        return data


class _Stream(httpx.SyncByteStream):
    """The content of a reply, read by read."""

    def __init__(
        self, outcomes: Generator[Outcome | None], reply: _Reply, request: httpx.Request
    ) -> None:
        self._outcomes = outcomes
        self._reply = reply
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield self._reply.take()
        for outcome in self._outcomes:
            yield self._reply.take()
            _raise_failure(outcome, self._request)

    def close(self) -> None:
        self._outcomes.close()


class _AsyncStream(httpx.AsyncByteStream):
    """The content of a reply, as it arrives."""

    def __init__(
        self, exchange: asyncio.Task[Outcome], reply: _Reply, request: httpx.Request
    ) -> None:
        self._exchange = exchange
        self._reply = reply
        self._request = request
        exchange.add_done_callback(lambda _: reply.changed.set())

    async def wait(self) -> None:
        await self._reply.changed.wait()
        self._reply.changed.clear()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._exchange.done():
            yield self._reply.take()
            await self._reply.changed.wait()
        yield self._reply.take()
        _raise_failure(self._exchange.result(), self._request)

    async def aclose(self) -> None:
        self._exchange.cancel()
        await asyncio.wait([self._exchange])


def _respond(
    reply: _Reply, stream: httpx.SyncByteStream | httpx.AsyncByteStream
) -> httpx.Response:
    """Return the response, whose content is decoded already."""
    encoded = any(name.lower() == b"content-encoding" for name, _ in reply.headers)
    gone = _UNTRUE_ONCE_DECODED if encoded else ()
    return httpx.Response(
        reply.status,
        headers=[line for line in reply.headers if line[0].lower() not in gone],
        stream=stream,
        extensions={"http_version": b"HTTP/1.1"},
    )


def _raise_failure(outcome: Outcome | None, request: httpx.Request) -> None:
    if outcome is not None and outcome.failure is not None:
        raise _ERRORS[outcome.failure](outcome.detail, request=request)
