"""Requests as bytes."""

from __future__ import annotations

import pytest

from ors_gym.client.http._address import Origin
from ors_gym.client.http._http1 import RequestWriter
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Head


def _writer(url: str = "http://host:8080/v1", **headers: str) -> RequestWriter:
    return RequestWriter(Origin(url), list(headers.items()))


def test_head_and_body_are_one_piece():
    head = Head("POST", "/e/call?x=1", [("X-Session-ID", "7")])
    assert _writer(**{"X-API-Key": "k"}).render(head, b"{}") == (
        b"POST /v1/e/call?x=1 HTTP/1.1\r\nhost: host:8080\r\n"
        b"accept-encoding: identity\r\nX-API-Key: k\r\nX-Session-ID: 7\r\n"
        b"content-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_no_length_without_a_body(method: str):
    request = _writer().render(Head(method, "/", ()), None)
    assert b"content-length" not in request
    assert request.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_length_zero_where_a_body_is_expected(method: str):
    # RFC 9110, section 8.6: otherwise a server may wait for one.
    request = _writer().render(Head(method, "/", ()), None)
    assert request.endswith(b"content-length: 0\r\n\r\n")


def test_a_request_s_header_comes_instead_of_the_client_s():
    writer = _writer(**{"User-Agent": "a", "Accept-Encoding": "gzip", "HOST": "proxy"})
    request = writer.render(Head("GET", "/", [("user-agent", "b")]), None)
    assert request.split(b"\r\n")[1:-2] == [
        b"Accept-Encoding: gzip",
        b"HOST: proxy",
        b"user-agent: b",
    ]


def test_equal_headers_of_one_request_are_all_sent():
    head = Head("GET", "/", [("X-A", "1"), ("x-a", "2")])
    assert _writer().render(head, None).count(b": 1\r\nx-a: 2\r\n") == 1


def test_rendering_is_kept_but_not_for_another_server():
    head = Head("GET", "/", ())
    first, second = _writer("http://a"), _writer("http://b")
    assert b"host: a" in first.render(head, None)
    assert first.render(head, b"x") == first.render(Head("GET", "/", ()), b"x")
    assert b"host: b" in second.render(head, None)
    assert b"host: a" in first.render(head, None)


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "Expect", "upgrade"]
)
def test_framing_is_the_connection_s_own(name: str):
    with pytest.raises(InvalidRequestError, match=name):
        _writer(**{name: "1"})
    with pytest.raises(InvalidRequestError, match=name):
        _writer().render(Head("GET", "/", [(name, "1")]), None)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00b", "\u0100"])
def test_a_header_cannot_break_out_of_its_line(value: str):
    with pytest.raises(InvalidRequestError) as caught:
        _writer(**{"X-API-Key": value})
    assert value not in str(caught.value)


def test_bytes_beyond_ascii_are_latin_1():
    assert b"x: \xf6\r\n" in _writer(x="\xf6").render(Head("GET", "/", ()), None)
