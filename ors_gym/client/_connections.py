"""The connections of a client: our own, or those of an httpx client.

httpx is for whoever has an httpx transport or client, or needs a proxy, and for systems
that lack what ours need. It is as careful as our connections, and slower. The name
stands for httpx2 and for its predecessor: see `library_of`.

The background has connections of its own. Where the user brought an httpx transport or
client, only that one may know the way to the server, so it carries pings and deletes
too: a blocking one on a thread, an async one on the user's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import types
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, Final, Protocol

from ors_gym._shown_text import even_half_made
from ors_gym._system import HAS_OWN_CONNECTIONS
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._session_core import CLOSE_TIMEOUT
from ors_gym.client.background import Pending, background
from ors_gym.client.http._address import Origin, default_ssl_context
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._failures import explain_failure
from ors_gym.client.http._http1 import BadReplyError, HeadReader, ReplyHead, ReplyReader
from ors_gym.client.http._httpx_library import (
    AsyncHttpxClient,
    AsyncHttpxTransport,
    HttpxClient,
    HttpxTransport,
    library_of,
)
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Failure, Outcome, Send
from ors_gym.protocol._server_state import ClientSettings

_CONNECT_SECONDS: Final = 10.0
"""For a new connection, and for a place in httpx's pool."""
_FRESH_SECONDS: Final = 10.0
"""What asks for a connection that was used more recently is a call, or repeats one."""
_UNDONE_BY_HTTPX: Final[tuple[bytes, ...]] = (b"content-length", b"transfer-encoding")


class Connections(Protocol):
    """What the blocking client needs of its connections."""

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    def close(self) -> None:
        """Close every connection."""


class AsyncConnections(Protocol):
    """What the async client needs of its connections."""

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    async def aclose(self) -> None:
        """Close every connection."""


def choose_connections(
    server: RemoteServer,
    transport: HttpxTransport | None,
    client: HttpxClient | None,
) -> Connections:
    """Choose the connections of a blocking client, and those of the background."""
    settings = server.settings
    brought = client is not None or transport is not None
    if not brought and not _needs_httpx(settings):
        return ConnectionPool.from_settings(settings)
    connections = HttpxConnections(settings, client, transport)
    if brought:
        return _UsersConnections(server, connections)
    # The background's deletes may outlast the client. So it has a pool of its own,
    # which keeps no idle connection.
    _use_thread_in_background(server, HttpxConnections(settings, most_idle=0))
    return connections


def choose_async_connections(
    server: RemoteServer,
    transport: AsyncHttpxTransport | None,
    client: AsyncHttpxClient | None,
) -> AsyncConnections:
    """Choose the connections of an async client, and those of the background."""
    settings = server.settings
    brought = client is not None or transport is not None
    if not brought and not _needs_httpx(settings):
        return AsyncConnectionPool.from_settings(settings)
    connections = AsyncHttpxConnections(settings, client, transport)
    if brought:
        return _UsersLoopConnections(server, connections)
    _use_thread_in_background(server, HttpxConnections(settings, most_idle=0))
    return connections


def _needs_httpx(settings: ClientSettings) -> bool:
    return not HAS_OWN_CONNECTIONS or _needs_proxy(settings)


def _needs_proxy(settings: ClientSettings) -> bool:
    if not settings.trust_env:
        return False
    origin = Origin(settings.base_url)
    # A loopback server is reached over plain http: a proxy could read the key.
    if origin.is_loopback or urllib.request.proxy_bypass(origin.host):
        return False
    proxies = urllib.request.getproxies()
    return origin.scheme in proxies or "all" in proxies


def _use_thread_in_background(
    server: RemoteServer, connections: HttpxConnections
) -> None:
    async def exchange(send: Send) -> Outcome:
        exchange_in_thread = partial(copy_context().run, connections.exchange, send)
        try:
            loop = asyncio.get_running_loop()
            started = loop.run_in_executor(None, exchange_in_thread)
        except RuntimeError:
            # The interpreter is shutting down and starts no thread any more.
            return connections.exchange(send)
        return await started

    server.background_exchange = exchange


class _UsersConnections:
    """A blocking httpx client of the user's, which also does the background's work.

    `close` waits for the background, since the user may close the httpx client next: a
    delete would be lost, and httpx leaks a connection that is opened meanwhile.
    """

    def __init__(self, server: RemoteServer, connections: HttpxConnections) -> None:
        self._server = server
        self._connections = connections
        self.exchange = connections.exchange
        _use_thread_in_background(server, connections)

    def close(self) -> None:
        if (work := background().finish(self._server)) is not None:
            work.wait(CLOSE_TIMEOUT)
        self._connections.close()


class _UsersLoopConnections:
    """An async httpx client of the user's: `_UsersConnections`, on the user's loop."""

    def __init__(
        self, server: RemoteServer, connections: AsyncHttpxConnections
    ) -> None:
        self._server = server
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        server.background_exchange = self._exchange_from_background

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange, on the loop that the user's client belongs to."""
        self._loop = asyncio.get_running_loop()
        return await self._connections.exchange(send)

    async def aclose(self) -> None:
        if (work := background().finish(self._server)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(work, CLOSE_TIMEOUT)
        await self._connections.aclose()

    async def _exchange_from_background(self, send: Send) -> Outcome:
        loop = self._loop
        if loop is None or not loop.is_running():
            return Outcome(
                sent=False,
                failure=Failure.CONNECT,
                detail="the event loop of the httpx client is not running",
            )
        pending: Pending[Outcome] = Pending()
        pending.start(loop, self._connections.exchange(send))
        return await pending


class _BaseHttpxConnections:
    """What the blocking and the async connections have in common."""

    def __init__(self, settings: ClientSettings, *brought: object) -> None:
        self._httpx = httpx = library_of(*brought)
        self._handled = (httpx.HTTPError, httpx.StreamError, OSError, BadReplyError)
        self.origin = Origin(settings.base_url)
        self._headers = settings.headers
        self._limits = settings.limits
        self._url = f"{self.origin.scheme}://{self.origin.authority}"

    @even_half_made
    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self._url}')"

    def _check_open(self, client: HttpxClient | AsyncHttpxClient) -> None:
        if client.is_closed:
            raise InvalidRequestError(
                f"the httpx client for {self.origin} was closed; close it last, after "
                "the sessions and the client that use it"
            )

    def _arguments(self, send: Send) -> dict[str, Any]:
        """Return the arguments of `httpx.Client.build_request`."""
        lines = list(send.head.headers)
        if send.traceparent:
            lines.append(("traceparent", send.traceparent))
        own = {name.lower() for name, _ in lines}
        headers = [("accept-encoding", "identity")]
        headers += [line for line in self._headers if line[0].lower() not in own]
        headers += lines
        if send.reuse_within < _FRESH_SECONDS:
            # httpx cannot promise that an idle connection is fresh enough for a call,
            # so none stays idle after a call (docs/wire.md, point 6).
            headers.append(("connection", "close"))
        connect = min(_CONNECT_SECONDS, send.timeout)
        idle = send.sink.idle_timeout
        return {
            "method": send.head.method,
            "url": f"{self._url}{self.origin.prefix}{send.head.target}",
            "headers": headers,
            "content": send.body,
            "timeout": self._httpx.Timeout(
                connect=connect,
                pool=connect,
                read=send.timeout if idle is None else min(idle, send.timeout),
                write=send.timeout,
            ),
        }

    def _begin(self, send: Send, response: Any) -> ReplyReader:
        """Hand the head of a reply to a reader."""
        if not 200 <= response.status_code <= 599:
            raise BadReplyError("sent a status that HTTP does not have")
        reader = ReplyReader(self._limits, HeadReader())
        reader.begin(send.sink)
        headers = tuple(response.headers.raw)
        # httpx has removed the framing. What is still encoded is decoded here, within
        # the limits.
        undone = _UNDONE_BY_HTTPX
        if response.is_stream_consumed:
            # A hook of the user's, or a transport without a stream, has read the body.
            undone = (*_UNDONE_BY_HTTPX, b"content-encoding")
        body_headers = [line for line in headers if line[0].lower() not in undone]
        head = ReplyHead(response.status_code, body_headers, persistent=False)
        head.headers = headers
        reader.start(head, b"")
        return reader

    def _outcome(
        self,
        send: Send,
        reader: ReplyReader | None,
        ended: Failure | Exception | None,
        trace: _Trace,
    ) -> Outcome:
        """Return what came of an exchange that ended, perhaps by a failure or error."""
        elapsed = trace.elapsed()
        if isinstance(ended, (self._httpx.ReadTimeout, TimeoutError)):
            ended = Failure.TIMEOUT if elapsed >= send.timeout else Failure.STALL
        if isinstance(ended, BadReplyError):
            detail = f"{self.origin} {ended}"
            outcome = Outcome(failure=Failure.PROTOCOL, detail=detail)
        elif isinstance(ended, Exception) and (reader is None or not reader.finished):
            outcome = _explain_httpx_error(self._httpx, self.origin, ended)
            outcome.status = 0 if reader is None else reader.status
        else:
            if reader is None:
                reader = ReplyReader(self._limits, HeadReader())
                reader.begin(send.sink)
            why = ended if isinstance(ended, Failure) else None
            return explain_failure(
                self.origin, send, reader, why, elapsed, reused=not trace.opened
            )
        outcome.elapsed = elapsed
        outcome.reused = not trace.opened
        return outcome


class HttpxConnections(_BaseHttpxConnections):
    """The connections of an `httpx.Client`: the user's own, or a new one."""

    def __init__(
        self,
        settings: ClientSettings,
        client: HttpxClient | None = None,
        transport: HttpxTransport | None = None,
        *,
        most_idle: int | None = None,
    ) -> None:
        super().__init__(settings, client, transport)
        self._owns_client = client is None
        self._client: HttpxClient = client or self._httpx.Client(
            verify=default_ssl_context(),
            transport=transport,
            trust_env=settings.trust_env,
            limits=self._httpx.Limits(
                max_connections=settings.limits.connections,
                max_keepalive_connections=most_idle,
            ),
        )

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""
        self._check_open(self._client)
        reader: ReplyReader | None = None
        ended: Failure | Exception | None = None
        trace = _Trace(send)
        before, _reading.trace = _reading.trace, trace
        try:
            request = self._client.build_request(
                **self._arguments(send), extensions={"trace": trace}
            )
            response = self._client.send(request, stream=True, follow_redirects=False)
            # No event told of a connection that was opened before this exchange.
            trace.bound(response.extensions.get("network_stream"))
            with contextlib.closing(response):
                reader = self._begin(send, response)
                for data in _pieces(response):
                    if reader.feed(data):
                        break
                    trace.wait()
                else:
                    reader.end()
        except self._handled as error:
            ended = error
        finally:
            _reading.trace = before
        return self._outcome(send, reader, ended, trace)

    def close(self) -> None:
        if self._owns_client:
            self._client.close()


class AsyncHttpxConnections(_BaseHttpxConnections):
    """The connections of an `httpx.AsyncClient`: the user's own, or a new one."""

    def __init__(
        self,
        settings: ClientSettings,
        client: AsyncHttpxClient | None = None,
        transport: AsyncHttpxTransport | None = None,
    ) -> None:
        super().__init__(settings, client, transport)
        self._owns_client = client is None
        self._make_client = partial(
            self._httpx.AsyncClient,
            verify=default_ssl_context(),
            transport=transport,
            trust_env=settings.trust_env,
            limits=self._httpx.Limits(max_connections=settings.limits.connections),
        )
        self._client: AsyncHttpxClient = client or self._make_client()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange; being cancelled closes its connection."""
        self._check_open(self._client)
        self._follow_loop()
        reader: ReplyReader | None = None
        ended: Failure | Exception | None = None
        trace = _Trace(send)
        try:
            async with asyncio.timeout(send.timeout) as scope:
                request = self._client.build_request(
                    **self._arguments(send), extensions={"trace": trace.take}
                )
                response = await self._client.send(
                    request, stream=True, follow_redirects=False
                )
                async with contextlib.aclosing(response):
                    reader = self._begin(send, response)
                    async for data in _async_pieces(response):
                        if reader.feed(data):
                            break
                        now = asyncio.get_running_loop().time()
                        scope.reschedule(now + trace.wait())
                    else:
                        reader.end()
        except self._handled as error:
            ended = error
        return self._outcome(send, reader, ended, trace)

    def _follow_loop(self) -> None:
        # Connections cannot leave their loop, which may have ended.
        before, self._loop = self._loop, asyncio.get_running_loop()
        if self._owns_client and before not in (None, self._loop):
            self._client = self._make_client()

    async def aclose(self) -> None:
        if self._owns_client:
            await self._client.aclose()


def _pieces(response: Any) -> Iterator[bytes]:
    """Yield a body as it comes, or the one that was read already."""
    if not response.is_stream_consumed:
        yield from response.iter_raw()
    elif response.content:
        yield response.content


async def _async_pieces(response: Any) -> AsyncIterator[bytes]:
    """Yield a body as it comes, or the one that was read already."""
    if not response.is_stream_consumed:
        async for data in response.aiter_raw():
            yield data
    elif response.content:
        yield response.content


class _Trace:
    """What httpcore tells of one exchange, and for how long its reads may wait.

    httpx fixes the timeout of all reads before the first. But how long a silence may be
    is known only after the call's first event, and a server that never stops sending
    lets no read time out. So the connection asks before each read.
    """

    def __init__(self, send: Send) -> None:
        self._sink = send.sink
        self._started = time.monotonic()
        self._deadline = self._started + send.timeout
        self.opened = False
        """Whether the exchange opened its connection."""

    def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Take an event of a blocking connection."""
        if event.endswith(_OPENED):
            self.opened = True
            self.bound(info["return_value"])

    async def take(self, event: str, _: dict[str, Any]) -> None:
        """Take an event of an async connection."""
        self.opened = self.opened or event.endswith(_OPENED)

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def bound(self, stream: Any) -> None:
        """Have each read of a connection ask the exchange how long it may wait."""
        if not isinstance(getattr(stream, "read", None), types.MethodType):
            # No stream of httpcore, or one that was bound in an exchange before.
            return
        read = stream.read

        def bounded(max_bytes: int, timeout: float | None = None) -> Any:
            trace = _reading.trace
            return read(max_bytes, timeout if trace is None else trace.wait())

        with contextlib.suppress(AttributeError):
            stream.read = bounded

    def wait(self) -> float:
        """Return the seconds that the next read may take, or raise `TimeoutError`."""
        idle, left = self._sink.idle_timeout, self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if idle is None else min(idle, left)


class _Reading(threading.local):
    """The exchange that this thread does, for the reads of its connection."""

    trace: _Trace | None = None


_reading: Final = _Reading()
_OPENED: Final = (
    "connect_tcp.complete",
    "connect_unix_socket.complete",
    "start_tls.complete",
)
"""How the events end by which httpcore tells that it has a new connection."""


_NOT_SENT: Final = (
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
)
_ENDED: Final = ("disconnected", "closed", "incomplete")


def _explain_httpx_error(httpx: Any, origin: Origin, error: Exception) -> Outcome:
    """Map an error of httpx to an outcome, without its time.

    The words of httpx are left out: some quote a header's value.
    """
    kind = type(error).__name__
    if isinstance(error, tuple(getattr(httpx, name) for name in _NOT_SENT)):
        if _comes_from_tls(error):
            failure, detail = Failure.TLS, f"no TLS connection to {origin}"
        else:
            failure, detail = Failure.CONNECT, f"cannot connect to {origin}"
        return Outcome(sent=False, failure=failure, detail=f"{detail} ({kind})")
    if isinstance(error, httpx.TimeoutException):
        failure, detail = Failure.TIMEOUT, f"{origin} took too long"
    elif isinstance(error, httpx.ProtocolError) and not any(
        word in str(error) for word in _ENDED
    ):
        failure, detail = Failure.PROTOCOL, f"{origin} sent what is not HTTP/1.1"
    else:
        failure, detail = Failure.RESET, f"the connection to {origin} broke"
    return Outcome(failure=failure, detail=f"{detail} ({kind})")


def _comes_from_tls(error: BaseException) -> bool:
    """Return whether an error of TLS is among the causes of an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
