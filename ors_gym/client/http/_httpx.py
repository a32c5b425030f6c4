"""Our connections as transports of httpx: ``httpx.Client(transport=...)``."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Final

import httpx

from ors_gym.client.http._address import Origin
from ors_gym.client.http._async_connection import AsyncTransport
from ors_gym.client.http._connection import Transport
from ors_gym.client.http._pool import DEFAULT_LIMITS
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Failure, Head, Headers, Limits, Outcome, Send

__all__ = ["AsyncPooledTransport", "PooledTransport"]

_OURS: Final = frozenset(
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
_UNDONE: Final = (b"content-encoding", b"content-length", b"transfer-encoding")
_ERRORS: Final[dict[Failure, type[httpx.TransportError]]] = {
    Failure.CONNECT: httpx.ConnectError,
    Failure.TLS: httpx.ConnectError,
    Failure.RESET: httpx.ReadError,
    Failure.STALL: httpx.ReadTimeout,
    Failure.TIMEOUT: httpx.ReadTimeout,
    Failure.PROTOCOL: httpx.RemoteProtocolError,
    Failure.LIMIT: httpx.RemoteProtocolError,
}


class _Arrivals:
    """Collects a reply as it arrives; a sink."""

    def __init__(self, idle_timeout: float | None) -> None:
        self.idle_timeout = idle_timeout
        self.status = 0
        self.headers: Headers = ()
        self._pieces: list[bytes] = []
        self.changed = asyncio.Event()
        """Set whenever there is something new; only the async transport waits."""

    def start(self, status: int, headers: Headers) -> None:
        """Take the head."""
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


class _Pools:
    """What both have in common: which pool, which request, which error."""

    def __init__(
        self,
        limits: Limits,
        connect_timeout: float,
        ssl_context: ssl.SSLContext | None,
        reuse_within: float,
    ) -> None:
        self._options: dict[str, Any] = {
            "limits": limits,
            "connect_timeout": connect_timeout,
            "ssl_context": ssl_context,
        }
        self._reuse_within = reuse_within

    def _plan(self, request: httpx.Request, body: bytes) -> tuple[str, Send, _Arrivals]:
        """Return the server of a request, the exchange, and its sink."""
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
                [line for line in lines if line[0].lower() not in _OURS],
            )
            server = f"{url.scheme}://{url.netloc.decode('ascii')}"
            Origin(server)
        except InvalidRequestError as error:
            raise httpx.UnsupportedProtocol(str(error), request=request) from error
        timeouts = request.extensions.get("timeout", {})
        sink = _Arrivals(timeouts.get("read"))
        has_body = body or "content-length" in request.headers
        content = body if has_body else None
        return server, Send(head, content, sink, math.inf, self._reuse_within), sink


class PooledTransport(_Pools, httpx.BaseTransport):
    """Blocking connections of ours for an `httpx.Client`, to any number of servers.

    Replies are streamed. HEAD is refused, and so are proxies. Of httpx's timeouts only
    ``read`` is heeded.

    Args:
        limits: Bounds on each reply, and on the connections to each server.
        connect_timeout: Seconds for a connection to come about.
        ssl_context: For https, instead of the one that all transports share.
        reuse_within: Seconds for which an idle connection is used again.

    Example:
        >>> with httpx.Client(transport=PooledTransport()) as client:
        ...     client.get("http://127.0.0.1:1/")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        httpx.ConnectError: cannot connect to 127.0.0.1:1: Connection refused. Is ...
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        reuse_within: float = 3.0,
    ) -> None:
        super().__init__(limits, connect_timeout, ssl_context, reuse_within)
        self._transports: dict[str, Transport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.BaseTransport`."""
        server, send, sink = self._plan(request, request.read())
        transport = self._transports.get(server)
        if transport is None:
            made = Transport(server, **self._options)
            transport = self._transports.setdefault(server, made)
        steps = transport.steps(send)
        for outcome in steps:
            _check(outcome, request)
            if sink.status:
                break
        return _respond(sink, _Stream(steps, sink, request))

    def close(self) -> None:
        """Close every connection."""
        for transport in list(self._transports.values()):
            transport.close()


class _Stream(httpx.SyncByteStream):
    """The content of a reply, read by read."""

    def __init__(
        self,
        steps: Generator[Outcome | None],
        sink: _Arrivals,
        request: httpx.Request,
    ) -> None:
        self._steps = steps
        self._sink = sink
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield self._sink.take()
        for outcome in self._steps:
            yield self._sink.take()
            _check(outcome, self._request)

    def close(self) -> None:
        self._steps.close()


class AsyncPooledTransport(_Pools, httpx.AsyncBaseTransport):
    """Async connections of ours for an `httpx.AsyncClient`, to any number of servers.

    Replies are streamed. HEAD is refused, and so are proxies. Of httpx's timeouts only
    ``read`` is heeded. It runs on asyncio.

    Args:
        limits: Bounds on each reply, and on the connections to each server.
        connect_timeout: Seconds for a connection to come about.
        ssl_context: For https, instead of the one that all transports share.
        reuse_within: Seconds for which an idle connection is used again.

    Example:
        >>> AsyncPooledTransport(reuse_within=1.0)  # doctest: +ELLIPSIS
        <...AsyncPooledTransport object at ...>
    """

    def __init__(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        reuse_within: float = 3.0,
    ) -> None:
        super().__init__(limits, connect_timeout, ssl_context, reuse_within)
        self._transports: dict[str, AsyncTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.AsyncBaseTransport`."""
        server, send, sink = self._plan(request, await request.aread())
        transport = self._transports.get(server)
        if transport is None:
            made = AsyncTransport(server, **self._options)
            transport = self._transports.setdefault(server, made)
        exchange = asyncio.create_task(transport.exchange(send))
        stream = _AsyncStream(exchange, sink, request)
        try:
            while not sink.status and not exchange.done():
                await stream.wait()
        except BaseException:
            await stream.aclose()
            raise
        if not sink.status:
            _check(exchange.result(), request)
        return _respond(sink, stream)

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in list(self._transports.values()):
            await transport.aclose()


class _AsyncStream(httpx.AsyncByteStream):
    """The content of a reply, as it arrives."""

    def __init__(
        self, exchange: asyncio.Task[Outcome], sink: _Arrivals, request: httpx.Request
    ) -> None:
        self._exchange = exchange
        self._sink = sink
        self._request = request
        exchange.add_done_callback(lambda _: sink.changed.set())

    async def wait(self) -> None:
        """Wait for something new."""
        await self._sink.changed.wait()
        self._sink.changed.clear()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._exchange.done():
            yield self._sink.take()
            await self._sink.changed.wait()
        yield self._sink.take()
        _check(self._exchange.result(), self._request)

    async def aclose(self) -> None:
        self._exchange.cancel()
        await asyncio.wait([self._exchange])


def _respond(
    sink: _Arrivals, stream: httpx.SyncByteStream | httpx.AsyncByteStream
) -> httpx.Response:
    """Return the response, its content decoded already."""
    encoded = any(name.lower() == _UNDONE[0] for name, _ in sink.headers)
    gone = _UNDONE if encoded else ()
    return httpx.Response(
        sink.status,
        headers=[line for line in sink.headers if line[0].lower() not in gone],
        stream=stream,
        extensions={"http_version": b"HTTP/1.1"},
    )


def _check(outcome: Outcome | None, request: httpx.Request) -> None:
    """Raise httpx's error for a failure."""
    if outcome is not None and outcome.failure is not None:
        raise _ERRORS[outcome.failure](outcome.detail, request=request)
