"""A sink that keeps what it gets, and requests to fill it."""

from __future__ import annotations

from ors_gym.protocol._exchange import Head, Headers, Outcome, Send

HEAD = Head("POST", "/math/call", [("content-type", "application/json")])
SECOND = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"


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


def post(
    sink: RecordingSink,
    *,
    body: bytes | None = b"{}",
    head: Head = HEAD,
    timeout: float = 20.0,
    reuse_within: float = 60.0,
) -> Send:
    """Return an exchange."""
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
