"""Our connections for clients of httpx2 and httpx."""

from __future__ import annotations

import asyncio
import functools
import math
import ssl
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from ors_gym._system import HAS_OWN_CONNECTIONS
from ors_gym.client.http._address import Origin
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._httpx_library import library_of
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

if TYPE_CHECKING:
    import httpx
    import httpx2

    class _AnyTransport(httpx2.BaseTransport, httpx.BaseTransport):
        """For type checkers alone: neither library asks for its own class."""

        def handle_request(self, request: Any) -> Any: ...

    class _AnyAsyncTransport(httpx2.AsyncBaseTransport, httpx.AsyncBaseTransport):
        """As `_AnyTransport`."""

        async def handle_async_request(self, request: Any) -> Any: ...
else:
    _AnyTransport = _AnyAsyncTransport = object

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
_ERRORS: Final = {
    Failure.CONNECT: "ConnectError",
    Failure.TLS: "ConnectError",
    Failure.RESET: "ReadError",
    Failure.STALL: "ReadTimeout",
    Failure.TIMEOUT: "ReadTimeout",
    Failure.PROTOCOL: "RemoteProtocolError",
    Failure.LIMIT: "RemoteProtocolError",
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

    def _prepare(self, request: Any, body: bytes) -> tuple[P, Send, _Reply]:
        """Return the pool for a request, the exchange, and its sink."""
        if request.method == "HEAD":
            raise _error("UnsupportedProtocol", "HEAD is not supported", request)
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
            raise _error("UnsupportedProtocol", str(error), request) from error
        pool = self._pools.get(server)
        if pool is None:
            made = self._make_pool(server, **self._options)
            # Another thread may have been faster.
            pool = self._pools.setdefault(server, made)
        reply = _Reply(request.extensions.get("timeout", {}).get("read"))
        has_body = body or "content-length" in request.headers
        content = body if has_body else None
        return pool, Send(head, content, reply, math.inf, self._reuse_within), reply


class HTTPTransport(_BaseTransport[ConnectionPool], _AnyTransport):
    """The connections of `ORSClient` for a `Client` of httpx2 or httpx.

    It takes requests to any number of servers, streams replies, bounds them, and stays
    as fast with hundreds of connections. There is no HEAD, no HTTP/2 and no proxy. Of
    the timeouts it heeds ``read``, as the seconds without a byte.

    Args:
        limits: Bounds on each reply, and on the connections to each server.
        connect_timeout: Seconds for a connection to come about, waiting for a free
            place in the pool and the TLS handshake included.
        ssl_context: Verifies https servers; by default with the system's certificates.
            Before Python 3.11.3, clear ``ssl.OP_IGNORE_UNEXPECTED_EOF`` in its options,
            or a reply that is cut may look whole.
        reuse_within: Seconds after its last byte for which a connection is used again.

    Raises:
        InvalidRequestError: If the system has no ``poll``, as Windows has none.

    Example:
        >>> import httpx2
        >>> from ors_gym.client import HTTPTransport
        >>> from ors_gym.server import embedded_base_url
        >>> with httpx2.Client(transport=HTTPTransport()) as client:
        ...     reply = client.get(f"{embedded_base_url()}/list_environments")
        >>> reply.status_code, "math" in reply.json()
        (200, True)
    """

    _make_pool = ConnectionPool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle_request(self, request: Any) -> Any:
        """Send a request; see the library's `BaseTransport`."""
        pool, send, reply = self._prepare(request, request.read())
        outcomes = pool.stream(send)
        for outcome in outcomes:
            _raise_failure(outcome, request)
            if reply.status:
                break
        stream = _stream_class(_Stream, library_of(request))(outcomes, reply, request)
        return _respond(reply, stream)

    def close(self) -> None:
        """Close every connection."""
        for pool in list(self._pools.values()):
            pool.close()


class AsyncHTTPTransport(_BaseTransport[AsyncConnectionPool], _AnyAsyncTransport):
    """The connections of `AsyncORSClient` for an `AsyncClient` of httpx2 or httpx.

    The async twin of `HTTPTransport`, with the same arguments and rules. It runs on
    asyncio.

    Example:
        >>> import asyncio
        >>> import httpx2
        >>> from ors_gym.client import AsyncHTTPTransport
        >>> from ors_gym.server import embedded_base_url
        >>> async def ask(url):
        ...     async with httpx2.AsyncClient(transport=AsyncHTTPTransport()) as client:
        ...         return (await client.get(url)).status_code
        >>> asyncio.run(ask(f"{embedded_base_url()}/list_environments"))
        200
    """

    _make_pool = AsyncConnectionPool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; see the library's `AsyncBaseTransport`."""
        pool, send, reply = self._prepare(request, await request.aread())
        exchange = asyncio.create_task(pool.exchange(send))
        kind = _stream_class(_AsyncStream, library_of(request))
        stream = kind(exchange, reply, request)
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


class _Stream:
    """The content of a reply, read by read."""

    base = "SyncByteStream"

    def __init__(
        self, outcomes: Generator[Outcome | None], reply: _Reply, request: Any
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


class _AsyncStream:
    """The content of a reply, as it arrives."""

    base = "AsyncByteStream"

    def __init__(
        self, exchange: asyncio.Task[Outcome], reply: _Reply, request: Any
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


S = TypeVar("S", _Stream, _AsyncStream)


@functools.cache
def _stream_class(kind: type[S], library: Any) -> type[S]:
    """Make it a class of the library, which asks whether it is one."""
    return type(kind.__name__, (kind, getattr(library, kind.base)), {})


def _respond(reply: _Reply, stream: _Stream | _AsyncStream) -> Any:
    """Return the response, whose content is decoded already."""
    encoded = any(name.lower() == b"content-encoding" for name, _ in reply.headers)
    gone = _UNTRUE_ONCE_DECODED if encoded else ()
    return library_of(stream).Response(
        reply.status,
        headers=[line for line in reply.headers if line[0].lower() not in gone],
        stream=stream,
        extensions={"http_version": b"HTTP/1.1"},
    )


def _raise_failure(outcome: Outcome | None, request: Any) -> None:
    if outcome is not None and outcome.failure is not None:
        raise _error(_ERRORS[outcome.failure], outcome.detail, request)


def _error(name: str, detail: str, request: Any) -> Exception:
    error: Exception = getattr(library_of(request), name)(detail, request=request)
    return error
