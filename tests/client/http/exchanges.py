"""Exchanges over our connections, blocking and async, and what comes of them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from ssl import SSLContext
from typing import Any

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Head, Headers, Outcome, Send
from tests.client.http.raw_server import RawServer, Script, raw_server

HEAD = Head("POST", "/math/call", [("content-type", "application/json")])
SECOND = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Exchange = Callable[[Send], Outcome]


class RecordingSink:
    """Keeps a reply; satisfied when its body holds some bytes, if any are given."""

    def __init__(
        self, *, until: bytes | None = None, idle_timeout: float | None = None
    ) -> None:
        self.idle_timeout = idle_timeout
        self._until = until
        self.starts: list[int] = []
        self.headers: Headers = ()
        self.body = b""
        self.pieces = 0

    def start(self, status: int, headers: Headers) -> None:
        self.starts.append(status)
        self.headers = headers

    def feed(self, data: bytes) -> bool:
        assert self.starts, "content before the head"
        assert data, "empty content"
        self.pieces += 1
        self.body += data
        return self._until is not None and self._until in self.body


class CountingSink(RecordingSink):
    """Keeps nothing of a reply, so that it may be as large as it likes."""

    def feed(self, data: bytes) -> bool:
        self.pieces += 1
        return False


def post(
    sink: RecordingSink,
    *,
    body: bytes | None = b"{}",
    head: Head = HEAD,
    timeout: float = 20.0,
    reuse_within: float = 60.0,
) -> Send:
    return Send(head, body, sink, timeout, reuse_within)


def describe(outcome: Outcome, sink: RecordingSink) -> str:
    """Say what came of an exchange, in a few words that a table can hold."""
    assert len(sink.starts) <= 1, "more than one head"
    if outcome.failure is not None:
        assert outcome.detail
        return outcome.failure.name
    assert sink.starts == [outcome.status]
    text = sink.body if len(sink.body) < 40 else b"%d bytes" % len(sink.body)
    return f"{outcome.status} {text.decode('latin-1')}".strip()


def ask(exchange: Exchange, *, until: bytes | None = None, **options: Any) -> str:
    sink = RecordingSink(until=until)
    return describe(exchange(post(sink, **options)), sink)


async def ask_async(pool: AsyncConnectionPool, *, until: bytes | None = None) -> str:
    sink = RecordingSink(until=until)
    return describe(await pool.exchange(post(sink)), sink)


@contextlib.contextmanager
def connect(kind: str, url: str, **options: Any) -> Iterator[Exchange]:
    if kind == "blocking":
        with contextlib.closing(ConnectionPool(url, **options)) as pool:
            yield pool.exchange
        return
    # This loop turns only in exchanges: the kernel alone knows what comes in between.
    with asyncio.Runner() as runner:
        async_pool = AsyncConnectionPool(url, **options)
        try:
            yield lambda send: runner.run(async_pool.exchange(send))
        finally:
            runner.run(async_pool.aclose())


@contextlib.contextmanager
def connected(
    kind: str,
    *scripts: Script,
    context: SSLContext | None = None,
    host: str = "127.0.0.1",
    **options: Any,
) -> Iterator[tuple[RawServer, Exchange]]:
    """Yield a server that plays these scripts, and the `exchange` of a pool to it."""
    with (
        raw_server(*scripts, context=context, host=host) as server,
        connect(kind, server.url, **options) as exchange,
    ):
        yield server, exchange
