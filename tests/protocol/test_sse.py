"""Streams of events, example by example (WHATWG HTML, section 9.2)."""

import pytest

from ors_gym.errors import LimitExceededError, ProtocolError
from ors_gym.protocol._sse import Event, EventDecoder

pytestmark = pytest.mark.unit


def decode(*pieces: bytes) -> list[tuple[bytes, bytes]]:
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.name, event.data) for event in events]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [(b"message", b"a")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data: a\nevent: x\n\n", [(b"x", b"a")]),
        (b"event: x\nevent: y\ndata: a\n\n", [(b"y", b"a")]),
        (b"event: x\nevent\ndata: a\n\n", [(b"message", b"a")]),
        (b"event: x\r\ndata: a\r\n\r\n", [(b"x", b"a")]),
        (b"event: x\rdata: a\r\r", [(b"x", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"message", b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"\n\xef\xbb\xbfdata: a\n\n", []),
        (b"data:a\n\ndata:  a\n\n", [(b"message", b"a"), (b"message", b" a")]),
        (b"data\ndata:\ndata: a\n\n", [(b"message", b"\n\na")]),
        (b"data\n\n", [(b"message", b"")]),
        (b"data: a: b\n\n", [(b"message", b"a: b")]),
        (b": data: a\n\nid: 1\nretry: 5\nevent: x\n\n", []),
        (b"event: x\n\ndata: a\n\n", [(b"message", b"a")]),
        (b" data: a\nDATA: b\nother\n\n", []),
        (b"event: x\r\ndata: a\x0bb\r\n\r\n", [(b"x", b"a\x0bb")]),
        ("data: \u2028\u0085é\n\n".encode(), [(b"message", "\u2028\u0085é".encode())]),
        (b"event: x\r\ndata: \r\n\r\n", [(b"x", b"")]),
        (b"event: x\r\ndata: a\r\ndata: b\r\n\r\n", [(b"x", b"a\nb")]),
        (b"event: x\r\ndata: a\n\r\n", [(b"x", b"a")]),
        (b"event: x\r\ndata: a\nb\r\n\r\n", [(b"x", b"a")]),
        (b"event: x\r\ndata: a\rb\r\n\r\n", [(b"x", b"a")]),
        (b"event: x\nid: 1\r\ndata: a\r\n\r\n", [(b"x", b"a")]),
        (b"event: x\r\ndata: a\r\n", []),
        (b"event: x\ry\r\ndata: a\r\n\r\n", [(b"x", b"a")]),
        (b"event: \r\ndata: a\r\n\r\n", [(b"message", b"a")]),
    ],
)
def test_streams(data: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert decode(data) == events
    assert decode(*(bytes([byte]) for byte in data)) == events
    assert decode(b"", data, b"") == events


def test_a_line_end_in_two_pieces_is_one() -> None:
    events = decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")
    assert events == [(b"message", b"a\nb")]
    assert decode(b"data: a\r", b"", b"\n\n") == [(b"message", b"a")]


def test_what_is_under_way_at_the_end() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"event: end\ndata: a\ndata: b") == []
    assert decoder.finish() == [Event(b"end", b"a\nb")]
    assert decoder.finish() == []
    assert EventDecoder().finish() == []


def test_a_line_is_bounded_and_many_are_not() -> None:
    decoder = EventDecoder(line_bytes=10)
    assert len(decoder.feed(b"data: abcd\n\n" * 100)) == 100
    assert decoder.feed(b"data: x\n\n" + b"y" * 11) == [Event(b"message", b"x")]
    with pytest.raises(LimitExceededError, match=r"10 bytes; raise Limits\.line_bytes"):
        decoder.feed(b"\n")


def test_the_text_of_an_event() -> None:
    assert Event(b"end", "é".encode()).text() == "é"
    with pytest.raises(ProtocolError, match="'end' event is not UTF-8: byte 1 is 0xff"):
        Event(b"end", b"a\xff").text()
