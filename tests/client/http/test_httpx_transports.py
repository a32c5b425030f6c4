"""Our connections under httpx2 and httpx."""

import asyncio
import gzip
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ors_gym.client import AsyncHTTPTransport, HTTPTransport
from tests.client.http.exchanges import CHUNKED, SECOND
from tests.client.http.raw_server import Close, raw_server

_HALF = [CHUNKED, b"4\r\ntask\r\n"]


def _ask_blocking(
    httpx: Any, method: str, url: str, times: int = 1, timeout: float = 20.0
) -> Any:
    body = b"x" if method == "POST" else None
    with httpx.Client(transport=HTTPTransport(), timeout=timeout) as client:
        return [client.request(method, url, content=body) for _ in range(times)][-1]


def _ask_async(
    httpx: Any, method: str, url: str, times: int = 1, timeout: float = 20.0
) -> Any:
    body = b"x" if method == "POST" else None

    async def ask() -> Any:
        transport = AsyncHTTPTransport()
        async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
            for _ in range(times):
                reply = await client.request(method, url, content=body)
            return reply

    return asyncio.run(ask())


@pytest.fixture
def ask(kind: str, library: Any) -> Callable[..., Any]:
    """Ask through a client of the library, each time over the same transport."""
    return partial(_ask_blocking if kind == "blocking" else _ask_async, library)


def test_requests_share_a_connection(ask):
    with raw_server([SECOND]) as server:
        reply = ask("POST", f"{server.url}/a?b=%20", times=3)
        assert (reply.status_code, reply.text) == (200, "second")
        assert server.connections == 1
        assert len(server.requests) == 3
        assert server.requests[0].head.startswith(b"POST /a?b=%20 HTTP/1.1\r\n")
        assert server.requests[0].body == b"x"


def test_headers_are_those_of_the_request(library: Any):
    with raw_server([SECOND]) as server:
        with library.Client(transport=HTTPTransport()) as client:
            client.get(server.url, headers={"k": "v"})
        head = server.requests[0].head
        assert b"\r\nk: v" in head
        assert b"accept-encoding: identity" in head
        assert b"content-length" not in head


def _stream_blocking(httpx: Any, url: str) -> Any:
    with (
        httpx.Client(transport=HTTPTransport()) as client,
        client.stream("POST", url) as reply,
    ):
        return next(reply.iter_bytes())


def _stream_async(httpx: Any, url: str) -> Any:
    async def stream() -> Any:
        async with (
            httpx.AsyncClient(transport=AsyncHTTPTransport()) as client,
            client.stream("POST", url) as reply,
        ):
            return await anext(reply.aiter_bytes())

    return asyncio.run(stream())


@pytest.mark.parametrize("stream", [_stream_blocking, _stream_async])
def test_a_reply_is_streamed(stream: Callable[[Any, str], Any], library: Any):
    with raw_server(_HALF) as server:
        assert stream(library, server.url) == b"task"
        # Leaving it halfway closes the connection.
        server.await_ended(1)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([Close()], "ReadError"),
        ([*_HALF, Close()], "ReadError"),
        ([b"garbage"], "RemoteProtocolError"),
        ([*_HALF, b"garbage"], "RemoteProtocolError"),
        ([], "ReadTimeout"),
        (_HALF, "ReadTimeout"),
    ],
)
def test_failures_are_errors_of_the_library(ask, library, script, error):
    timeout = 0.2 if error == "ReadTimeout" else 20.0
    expected = pytest.raises(getattr(library, error), match=r"127\.0\.0\.1")
    with raw_server(script) as server, expected:
        ask("POST", server.url, timeout=timeout)


def test_what_is_not_supported_says_so(ask, library):
    with pytest.raises(library.UnsupportedProtocol, match="HEAD"):
        ask("HEAD", "http://127.0.0.1:1")
    with pytest.raises(library.UnsupportedProtocol, match="must begin with"):
        ask("GET", "ftp://127.0.0.1:1")
    with pytest.raises(library.ConnectError):
        ask("GET", "http://127.0.0.1:1")


def test_encoded_content_is_decoded_once(ask):
    body = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with raw_server([head % len(body) + body]) as server:
        reply = ask("GET", server.url)
        assert reply.content == b"hello"
        assert "content-encoding" not in reply.headers
