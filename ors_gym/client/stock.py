"""Exchanges over a stock httpx client: the user's own, or one that knows of proxies.

Correct, and several times slower than our connections. One rule cannot be kept here:
httpx does not say how long a connection was idle, so a request that may only use a
fresh one asks the server to close each connection instead (docs/wire.md, point 6).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import httpx

from ors_gym.client.failures import explain_failure
from ors_gym.client.heads import BadReplyError, HeadReader, ReplyHead
from ors_gym.client.http1 import ReplyReader
from ors_gym.client.origin import Origin
from ors_gym.client.pool import DEFAULT_LIMITS
from ors_gym.client.stock_errors import explain_httpx_error
from ors_gym.client.watchdog import Watchdog
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol.exchange import Failure, Head, Outcome, Send
from ors_gym.protocol.limits import Limits

__all__ = ["AsyncStockTransport", "StockTransport"]

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
        >>> from ors_gym.client.facade import PooledTransport
        >>> StockTransport("http://127.0.0.1:1", transport=PooledTransport())
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
