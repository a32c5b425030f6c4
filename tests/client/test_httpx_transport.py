"""Stock httpx under the exchanges of a client."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from ors_gym.client.httpx_transport import AsyncStockTransport, StockTransport
from ors_gym.protocol._exchange import Failure, Limits, Outcome, Send
from tests.client.http.exchanges import (
    CHUNKED,
    SECOND,
    RecordingSink,
    ask,
    describe,
    post,
)
from tests.client.http.scripted_server import Close, Drip, Repeat, Script, scripted

_HALF = [CHUNKED, b"4\r\ntask\r\n"]


class _Stock:
    """Either transport, blocking or async, driven in the same way."""

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


@pytest.mark.parametrize(
    ("script", "sink", "timeout", "expected"),
    [
        (_HALF, RecordingSink(until=b"task"), 20.0, "200 task"),
        (_HALF, _Silence(), 20.0, "STALL"),
        (_HALF, _Silence(), 0.1, "TIMEOUT"),
        ([CHUNKED, Drip(b"1\r\nx\r\n" * 100, 0.02)], _Silence(), 0.5, "TIMEOUT"),
        ([CHUNKED], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(idle_timeout=0.1), 20.0, "STALL"),
        ([*_HALF, Close()], RecordingSink(), 20.0, "RESET"),
        ([Close()], RecordingSink(), 20.0, "RESET"),
        ([Close(reset=True)], RecordingSink(), 20.0, "RESET"),
        ([b"garbage\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([b"HTTP/1.1 999 x\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([CHUNKED, Repeat(b"10000\r\n" + b"x" * 2**16 + b"\r\n", 32)],
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


def test_stock_that_finds_nobody_has_not_sent(kind: str):
    outcome = _Stock(kind, "http://127.0.0.1:1").exchange(post(RecordingSink()))
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)


def test_stock_over_a_mock(kind: str):
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.content * 2)

    transport = httpx.MockTransport(answer)
    stock = _Stock(kind, "http://nowhere", transport=transport)
    assert ask(stock.exchange, body=b"ab") == "200 abab"


def test_the_user_s_own_client_stays_open():
    with scripted([SECOND]) as server, httpx.Client() as client:
        transport = StockTransport(server.url, client)
        transport.close()
        assert ask(transport.exchange) == "200 second"
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
        assert ask(stock.exchange) == "200 second"
        stock.close()
        line = proxy.requests[0].head.split(b"\r\n")[0]
        assert line == b"POST http://server.invalid/math/call HTTP/1.1"
