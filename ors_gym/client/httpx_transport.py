"""What httpx raises, as failures: this is where errors of a library are mapped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import httpx

from ors_gym.client.http._address import Origin
from ors_gym.client.http._failures import explain_failure
from ors_gym.client.http._http1 import BadReplyError, HeadReader, ReplyHead, ReplyReader
from ors_gym.client.http._pool import DEFAULT_LIMITS
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Failure, Head, Limits, Outcome, Send

__all__ = ["AsyncStockTransport", "StockTransport", "Watchdog", "explain_httpx_error"]

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_ENDED = ("disconnected", "closed", "incomplete")


def explain_httpx_error(origin: Origin, error: Exception) -> Outcome:
    """Return the outcome of an exchange that httpx ended with an error.

    The words of httpx are left out: some quote a header's value.

    Args:
        origin: The server.
        error: What httpx raised.

    Returns:
        The outcome, without its time.

    Example:
        >>> error = httpx.ConnectError("refused")
        >>> outcome = explain_httpx_error(Origin("http://h:1"), error)
        >>> outcome.sent, outcome.detail
        (False, 'cannot connect to h:1 (ConnectError)')
    """
    kind = type(error).__name__
    if isinstance(error, _NOT_SENT):
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
    """Tell whether an error has one of TLS among its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class Watchdog:
    """Ends the connection under a thread that reads from one that fell silent.

    httpx fixes the timeout of all reads before the first; how long a silence may be is
    known only after the call's first event. A transport of the user's own, without a
    socket, is not watched.

    Args:
        send: The exchange.
        started: When it began, on the clock of `time.monotonic`.
    """

    def __init__(self, send: Send, started: float) -> None:
        self._send = send
        self._deadline = started + send.timeout
        self._last_byte = started
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.ended: Failure | None = None
        """Why the exchange had to end, if it had to."""

    def touch(self, response: httpx.Response) -> bool:
        """Take note of a byte.

        Args:
            response: What it is part of.

        Returns:
            Whether the time of the whole exchange is over.
        """
        self._last_byte = time.monotonic()
        if self._last_byte >= self._deadline:
            self.ended = Failure.TIMEOUT
            return True
        if self._thread is None and self._send.sink.idle_timeout is not None:
            stream = response.extensions.get("network_stream")
            connected = stream.get_extra_info("socket") if stream else None
            if connected is not None:
                self._thread = threading.Thread(
                    target=self._watch, args=(connected,), daemon=True
                )
                self._thread.start()
        return False

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, connected: socket.socket) -> None:
        while not self._stop.is_set():
            idle = self._send.sink.idle_timeout
            silent = self._last_byte + idle if idle is not None else self._deadline
            wait = min(silent, self._deadline) - time.monotonic()
            if wait > 0:
                self._stop.wait(wait)
                continue
            in_time = silent < self._deadline
            self.ended = Failure.STALL if in_time else Failure.TIMEOUT
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which would say goodbye.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
            return


_FRESH_SECONDS: Final = 10.0
_HANDLED: Final = (httpx.HTTPError, httpx.StreamError, OSError)
_FRAMING: Final[tuple[bytes, ...]] = (b"content-length", b"transfer-encoding")


class _Stock:
    """What both have in common.

    Args:
        base_url: The server; its path comes before each target.
        headers: Header lines of every request, beside those of the httpx client.
        limits: Bounds on each reply.
        connect_timeout: Seconds for a connection, waiting for the pool included.

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
    ) -> None:
        self.origin = Origin(base_url)
        self._headers = Head("GET", "/", headers).headers
        self._limits = limits
        self._connect_timeout = connect_timeout
        self._url = f"{self.origin.scheme}://{self.origin.authority}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self._url}')"

    def _check_open(self, client: httpx.Client | httpx.AsyncClient) -> None:
        if client.is_closed:
            raise InvalidRequestError(
                f"the httpx client for {self.origin} was closed; close it last, after "
                "the sessions and the client that use it"
            )

    def _arguments(self, send: Send) -> dict[str, Any]:
        """Return what `build_request` takes."""
        own = {name.lower() for name, _ in send.head.headers}
        headers = [("accept-encoding", "identity")]
        headers += [line for line in self._headers if line[0].lower() not in own]
        headers += send.head.headers
        if send.reuse_within < _FRESH_SECONDS:
            headers.append(("connection", "close"))
        connect = min(self._connect_timeout, send.timeout)
        idle = send.sink.idle_timeout
        return {
            "method": send.head.method,
            "url": f"{self._url}{self.origin.prefix}{send.head.target}",
            "headers": headers,
            "content": send.body,
            "timeout": httpx.Timeout(
                connect=connect,
                pool=connect,
                read=send.timeout if idle is None else min(idle, send.timeout),
                write=send.timeout,
            ),
        }

    def _begin(self, send: Send, response: httpx.Response) -> ReplyReader:
        """Hand the head of a reply to a reader.

        Raises:
            BadReplyError: If it has no status of HTTP.
        """
        if not 200 <= response.status_code <= 599:
            raise BadReplyError("sent a status that HTTP does not have")
        reader = ReplyReader(self._limits, HeadReader())
        reader.begin(send.sink)
        headers = tuple(response.headers.raw)
        # httpx has undone the framing; the encoding is left to us, and bounded.
        undone = _FRAMING
        if response.is_stream_consumed:
            # A hook of the user's, or a transport without a stream, has read the body.
            undone = (*_FRAMING, b"content-encoding")
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
        elapsed: float,
    ) -> Outcome:
        """Say what came of an exchange."""
        if isinstance(ended, httpx.ReadTimeout):
            ended = Failure.TIMEOUT if elapsed >= send.timeout else Failure.STALL
        if isinstance(ended, BadReplyError):
            detail = f"{self.origin} {ended}"
            outcome = Outcome(failure=Failure.PROTOCOL, detail=detail)
        elif isinstance(ended, Exception) and (reader is None or not reader.finished):
            outcome = explain_httpx_error(self.origin, ended)
            outcome.status = 0 if reader is None else reader.status
        else:
            if reader is None:
                reader = ReplyReader(self._limits, HeadReader())
                reader.begin(send.sink)
            why = ended if isinstance(ended, Failure) else None
            return explain_failure(self.origin, send, reader, why, elapsed)
        outcome.elapsed = elapsed
        return outcome


class StockTransport(_Stock):
    """Exchanges over an `httpx.Client`.

    Args:
        base_url: The server; its path comes before each target.
        client: The user's own client, which stays theirs to close; None to make one.
        transport: What the client that is made sends with.
        trust_env: Whether the client that is made heeds the environment's proxies.
        headers: Header lines of every request, beside those of the client.
        limits: Bounds on each reply.
        connect_timeout: Seconds for a connection, waiting for the pool included.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.

    Example:
        >>> from ors_gym.client import HTTPTransport
        >>> StockTransport("http://127.0.0.1:1", transport=HTTPTransport())
        StockTransport('http://127.0.0.1:1')
    """

    def __init__(
        self,
        base_url: str,
        client: httpx.Client | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        trust_env: bool = False,
        headers: Sequence[tuple[str, str]] = (),
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
    ) -> None:
        super().__init__(
            base_url, headers=headers, limits=limits, connect_timeout=connect_timeout
        )
        self._owns = client is None
        self._client = client or httpx.Client(
            transport=transport,
            trust_env=trust_env,
            limits=httpx.Limits(max_connections=limits.connections),
        )

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange.

        The timeouts are those of httpx, for each read: a server that sends something
        now and then can take twice as long as `Send.timeout` allows.

        Args:
            send: What to send, and the sink that reads the reply.

        Returns:
            What came of it; failures of the network and the server too.

        Raises:
            InvalidRequestError: If the httpx client was closed.
        """
        self._check_open(self._client)
        started = time.monotonic()
        reader: ReplyReader | None = None
        ended: Failure | Exception | None = None
        watchdog = Watchdog(send, started)
        try:
            request = self._client.build_request(**self._arguments(send))
            response = self._client.send(request, stream=True, follow_redirects=False)
            with contextlib.closing(response), contextlib.closing(watchdog):
                reader = self._begin(send, response)
                for data in _pieces(response):
                    if reader.feed(data) or watchdog.touch(response):
                        break
                else:
                    reader.end()
        except (*_HANDLED, BadReplyError) as error:
            ended = error
        elapsed = time.monotonic() - started
        return self._outcome(send, reader, watchdog.ended or ended, elapsed)

    def close(self) -> None:
        """Close the client, unless it is the user's own."""
        if self._owns:
            self._client.close()


class AsyncStockTransport(_Stock):
    """Exchanges over an `httpx.AsyncClient`.

    Args:
        base_url: The server; its path comes before each target.
        client: The user's own client, which stays theirs to close; None to make one.
        transport: What the client that is made sends with.
        trust_env: Whether the client that is made heeds the environment's proxies.
        headers: Header lines of every request, beside those of the client.
        limits: Bounds on each reply.
        connect_timeout: Seconds for a connection, waiting for the pool included.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.

    Example:
        >>> AsyncStockTransport("http://127.0.0.1:1", httpx.AsyncClient())
        AsyncStockTransport('http://127.0.0.1:1')
    """

    def __init__(
        self,
        base_url: str,
        client: httpx.AsyncClient | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = False,
        headers: Sequence[tuple[str, str]] = (),
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
    ) -> None:
        super().__init__(
            base_url, headers=headers, limits=limits, connect_timeout=connect_timeout
        )
        self._owns = client is None
        self._client = client or httpx.AsyncClient(
            transport=transport,
            trust_env=trust_env,
            limits=httpx.Limits(max_connections=limits.connections),
        )

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange; being cancelled closes its connection.

        Args:
            send: What to send, and the sink that reads the reply.

        Returns:
            What came of it; failures of the network and the server too.

        Raises:
            InvalidRequestError: If the httpx client was closed.
        """
        self._check_open(self._client)
        started = time.monotonic()
        reader: ReplyReader | None = None
        ended: Failure | Exception | None = None
        try:
            async with asyncio.timeout(send.timeout) as scope:
                request = self._client.build_request(**self._arguments(send))
                response = await self._client.send(
                    request, stream=True, follow_redirects=False
                )
                async with contextlib.aclosing(response):
                    reader = self._begin(send, response)
                    async for data in _async_pieces(response):
                        if reader.feed(data):
                            break
                        _postpone(scope, send, started)
                    else:
                        reader.end()
        except TimeoutError:
            in_time = time.monotonic() - started < send.timeout
            ended = Failure.STALL if in_time else Failure.TIMEOUT
        except (*_HANDLED, BadReplyError) as error:
            ended = error
        return self._outcome(send, reader, ended, time.monotonic() - started)

    async def aclose(self) -> None:
        """Close the client, unless it is the user's own."""
        if self._owns:
            await self._client.aclose()


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    """Yield a body as it comes, or the one that was read already."""
    if not response.is_stream_consumed:
        yield from response.iter_raw()
    elif response.content:
        yield response.content


async def _async_pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a body as it comes, or the one that was read already."""
    if not response.is_stream_consumed:
        async for data in response.aiter_raw():
            yield data
    elif response.content:
        yield response.content


def _postpone(scope: asyncio.Timeout, send: Send, started: float) -> None:
    """Give the next read its time: silence is limited, and so is the whole."""
    now = time.monotonic()
    left = started + send.timeout - now
    idle = send.sink.idle_timeout
    scope.reschedule(
        asyncio.get_running_loop().time() + (left if idle is None else min(idle, left))
    )
