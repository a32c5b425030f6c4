"""Our connections under httpx, and httpx under our exchanges."""

from __future__ import annotations

import asyncio
import gzip
import threading

import httpx
import pytest

from ors_gym.client import AsyncHTTPTransport, HTTPTransport
from ors_gym.client.httpx_transport import AsyncStockTransport, StockTransport
from ors_gym.protocol._exchange import Failure, Limits, Outcome, Send
from tests.client.http.recording import SECOND, RecordingSink, describe, post
from tests.client.http.scripted import Close, Drip, Repeat, Script, scripted

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_HALF = [_CHUNKED, b"4\r\ntask\r\n"]


def test_blocking_requests_share_a_connection():
    with (
        scripted([SECOND]) as server,
        httpx.Client(transport=HTTPTransport()) as client,
    ):
        for _ in range(3):
            reply = client.post(
                f"{server.url}/a?b=%20", json={"x": 1}, headers={"k": "v"}
            )
            assert (reply.status_code, reply.text) == (200, "second")
        assert server.connections == 1
        assert server.requests[0].head.startswith(b"POST /a?b=%20 HTTP/1.1\r\n")
        assert b"\r\nk: v" in server.requests[0].head
        assert server.requests[0].body == b'{"x":1}'
        assert b"content-length" not in _head_of_get(client, server.url)


def _head_of_get(client: httpx.Client, url: str) -> bytes:
    with scripted([SECOND]) as server:
        client.get(server.url)
        return server.requests[0].head


def test_async_requests_share_a_connection():
    async def ask(url: str) -> list[str]:
        async with httpx.AsyncClient(transport=AsyncHTTPTransport()) as client:
            return [(await client.post(url, content=b"x")).text for _ in range(3)]

    with scripted([SECOND]) as server:
        assert asyncio.run(ask(server.url)) == ["second"] * 3
        assert server.connections == 1


def test_a_blocking_reply_is_streamed():
    with (
        scripted([*_HALF]) as server,
        httpx.Client(transport=HTTPTransport()) as client,
    ):
        with client.stream("POST", server.url) as reply:
            assert next(reply.iter_bytes()) == b"task"
        # Leaving it halfway closes the connection.
        server.await_that(lambda: server.ended == 1)


def test_an_async_reply_is_streamed():
    async def stream(url: str) -> bytes:
        async with (
            httpx.AsyncClient(transport=AsyncHTTPTransport()) as client,
            client.stream("POST", url) as reply,
        ):
            async for data in reply.aiter_bytes():
                return data
        return b""

    with scripted([*_HALF]) as server:
        assert asyncio.run(stream(server.url)) == b"task"
        server.await_that(lambda: server.ended == 1)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([Close()], httpx.ReadError),
        ([*_HALF, Close()], httpx.ReadError),
        ([b"garbage"], httpx.RemoteProtocolError),
        ([*_HALF, b"garbage"], httpx.RemoteProtocolError),
        ([], httpx.ReadTimeout),
        ([*_HALF], httpx.ReadTimeout),
    ],
)
def test_failures_are_errors_of_httpx(script: Script, error: type[httpx.HTTPError]):
    async def ask(url: str) -> None:
        client = httpx.AsyncClient(transport=AsyncHTTPTransport(), timeout=0.2)
        async with client:
            await client.post(url)

    with scripted(script) as server:
        with (
            httpx.Client(transport=HTTPTransport(), timeout=0.2) as client,
            pytest.raises(error, match=r"127\.0\.0\.1"),
        ):
            client.post(server.url)
        with pytest.raises(error, match=r"127\.0\.0\.1"):
            asyncio.run(ask(server.url))


def test_what_is_not_supported_says_so():
    with httpx.Client(transport=HTTPTransport()) as client:
        with pytest.raises(httpx.UnsupportedProtocol, match="HEAD"):
            client.head("http://127.0.0.1:1")
        with pytest.raises(httpx.ConnectError):
            client.get("http://127.0.0.1:1")


def test_encoded_content_is_decoded_once():
    body = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with scripted([head % len(body) + body]) as server:
        with httpx.Client(transport=HTTPTransport()) as client:
            reply = client.get(server.url)
            assert reply.content == b"hello"
            assert "content-encoding" not in reply.headers
        assert b"accept-encoding: identity" in server.requests[0].head


class _Stock:
    """Either stock adapter, driven in the same way."""

    def __init__(self, kind: str, url: str, **options: object) -> None:
        self._kind = kind
        self._url = url
        self._options = options

    def exchange(self, send: Send) -> Outcome:
        if self._kind == "blocking":
            transport = StockTransport(self._url, **self._options)  # type: ignore[arg-type]
            try:
                return transport.exchange(send)
            finally:
                transport.close()

        async def ask() -> Outcome:
            transport = AsyncStockTransport(self._url, **self._options)  # type: ignore[arg-type]
            try:
                return await transport.exchange(send)
            finally:
                await transport.aclose()

        return asyncio.run(ask())


both_stocks = pytest.mark.parametrize("kind", ["blocking", "async"])


@both_stocks
def test_stock_exchange(kind: str):
    with scripted([SECOND]) as server:
        stock = _Stock(kind, f"{server.url}/v1", headers=[("X-API-Key", "k")])
        sink = RecordingSink()
        outcome = stock.exchange(post(sink))
        assert describe(outcome, sink) == "200 second"
        assert (b"content-length", b"6") in outcome.headers
        head = server.requests[0].head.lower()
        assert head.startswith(b"post /v1/math/call http/1.1\r\n")
        assert b"\r\nx-api-key: k" in head
        assert head.count(b"\r\naccept-encoding: identity") == 1


@both_stocks
def test_stock_asks_to_close_after_a_call_only(kind: str):
    with scripted([SECOND]) as server:
        stock = _Stock(kind, server.url)
        stock.exchange(post(RecordingSink(), reuse_within=3.0))
        stock.exchange(post(RecordingSink(), reuse_within=50.0))
        heads = [request.head.lower() for request in server.requests]
        assert [b"connection: close" in head for head in heads] == [True, False]


class _Silence(RecordingSink):
    """Limits the silence from its first content on, as a call does."""

    def feed(self, data: bytes) -> bool:
        self.idle_timeout = 0.2
        return super().feed(data)


@both_stocks
@pytest.mark.parametrize(
    ("script", "sink", "timeout", "expected"),
    [
        (_HALF, RecordingSink(until=b"task"), 20.0, "200 task"),
        (_HALF, _Silence(), 20.0, "STALL"),
        (_HALF, _Silence(), 0.1, "TIMEOUT"),
        ([_CHUNKED, Drip(b"1\r\nx\r\n" * 100, 0.02)], _Silence(), 0.5, "TIMEOUT"),
        ([_CHUNKED], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(idle_timeout=0.1), 20.0, "STALL"),
        ([*_HALF, Close()], RecordingSink(), 20.0, "RESET"),
        ([Close()], RecordingSink(), 20.0, "RESET"),
        ([Close(reset=True)], RecordingSink(), 20.0, "RESET"),
        ([b"garbage\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([b"HTTP/1.1 999 x\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([_CHUNKED, Repeat(b"10000\r\n" + b"x" * 2**16 + b"\r\n", 32)],
         RecordingSink(), 20.0, "LIMIT"),
        ([b"HTTP/1.1 307 x\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"],
         RecordingSink(), 20.0, "307"),
        ([b"HTTP/1.1 204 x\r\n\r\n"], RecordingSink(), 20.0, "204"),
        ([b"HTTP/1.1 200 x\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx"],
         RecordingSink(), 20.0, "PROTOCOL"),
    ],
)  # fmt: skip
def test_stock_outcomes(
    kind: str, script: Script, sink: RecordingSink, timeout: float, expected: str
):
    sink.__init__(until=sink._until, idle_timeout=sink.idle_timeout)  # type: ignore[misc]
    with scripted(script) as server:
        stock = _Stock(kind, server.url, limits=Limits(body_bytes=2**20))
        outcome = stock.exchange(post(sink, timeout=timeout, reuse_within=3.0))
    assert describe(outcome, sink) == expected
    assert outcome.sent
    assert outcome.elapsed > 0


@both_stocks
def test_stock_that_finds_nobody_has_not_sent(kind: str):
    outcome = _Stock(kind, "http://127.0.0.1:1").exchange(post(RecordingSink()))
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)


@both_stocks
def test_stock_over_a_mock(kind: str):
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.content * 2)

    transport = httpx.MockTransport(answer)
    sink = RecordingSink()
    outcome = _Stock(kind, "http://nowhere", transport=transport).exchange(
        post(sink, body=b"ab")
    )
    assert describe(outcome, sink) == "200 abab"


def test_the_user_s_own_client_stays_open():
    with scripted([SECOND]) as server, httpx.Client() as client:
        transport = StockTransport(server.url, client)
        transport.close()
        sink = RecordingSink()
        assert describe(transport.exchange(post(sink)), sink) == "200 second"
        assert client.get(server.url).text == "second"


def test_the_watchdog_leaves_no_thread_behind():
    before = threading.active_count()
    with scripted([SECOND]) as server:
        inside = threading.active_count()
        sink = RecordingSink(idle_timeout=5.0)
        assert describe(_Stock("blocking", server.url).exchange(post(sink)), sink)
        assert threading.active_count() <= inside + 1  # the server's, for a connection
    assert threading.active_count() == before


def test_stock_through_a_proxy(monkeypatch: pytest.MonkeyPatch):
    with scripted([SECOND]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        stock = StockTransport("http://server.invalid:80", trust_env=True)
        sink = RecordingSink()
        assert describe(stock.exchange(post(sink)), sink) == "200 second"
        stock.close()
        line = proxy.requests[0].head.split(b"\r\n")[0]
        assert line == b"POST http://server.invalid/math/call HTTP/1.1"
