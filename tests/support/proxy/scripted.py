"""A server that sends exactly the bytes that a test wants sent."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from tests.support.ports import reserve_new_port
from tests.support.proxy.http1 import ReceivedRequest, read_request, reply_bytes
from tests.support.proxy.loop import LoopServer, hang_up

Then = Literal["keep", "close", "reset", "hold"]
"""What becomes of a connection after a reply; "hold" keeps it open without a byte."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawReply:
    # Each piece is a write of its own; there may be no end of them.
    pieces: Iterable[bytes] | AsyncIterator[bytes]
    then: Then = "keep"


Handler: TypeAlias = Callable[[ReceivedRequest], RawReply]
"""Answers a request; runs in the server's thread."""


def json_reply(
    value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> RawReply:
    return RawReply([reply_bytes(status, json.dumps(value).encode(), headers)])


def html_reply(text: str, status: int = 200) -> RawReply:
    return RawReply([reply_bytes(status, text.encode(), content_type="text/html")])


def status_reply(status: int, *headers: tuple[str, str]) -> RawReply:
    return RawReply([reply_bytes(status, b"", headers)])


def event_stream(*events: tuple[str, str]) -> bytes:
    """Return events as both SDKs write them, with CRLF."""
    blocks = []
    for event, data in events:
        lines = "".join(f"data: {line}\r\n" for line in data.split("\n"))
        blocks.append(f"event: {event}\r\n{lines}\r\n")
    return "".join(blocks).encode()


def stream_reply(
    *pieces: bytes, then: Then = "keep", headers: tuple[tuple[str, str], ...] = ()
) -> RawReply:
    """Return events, a chunk for each piece; the last one is missing unless kept."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream; charset=utf-8"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked"]) + "\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    end = [b"0\r\n\r\n"] if then == "keep" else []
    return RawReply([head.encode("latin-1"), *chunks, *end], then)


class ScriptedServer(LoopServer):
    """Serves handlers over HTTP/1.1 with keep-alive.

    A handler's name is a path, with or without a method before it, or ``*`` and the end
    of a path. What has none gets the 404 of both SDKs.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers
        self.requests: list[ReceivedRequest] = []
        super().__init__("scripted-server")

    def wait_for(self, count: int) -> None:
        arrived = self.requests
        self.await_that(lambda: len(arrived) >= count, f"no {count} requests came")

    def _handler(self, request: ReceivedRequest) -> Handler:
        path = request.path
        for name in (f"{request.method} {path}", path):
            if name in self.handlers:
                return self.handlers[name]
        for name, handler in self.handlers.items():
            if name.startswith("*") and path.endswith(name[1:]):
                return handler
        return lambda _: json_reply({"detail": "Not Found"}, 404)

    async def serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while request := await read_request(reader, number):
            with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
            reply = self._handler(request)(request)
            await _send(writer, reply.pieces)
            if reply.then == "hold":
                await reader.read(1)
            if reply.then != "keep":
                await hang_up(writer, reset=reply.then == "reset")
                return


async def _send(
    writer: asyncio.StreamWriter, pieces: Iterable[bytes] | AsyncIterator[bytes]
) -> None:
    if isinstance(pieces, AsyncIterator):
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


class OtherOrigin(ScriptedServer):
    """A server that nothing of ours may reach; records what does."""

    # What is late for a server of an earlier test does not come here.
    reserve = staticmethod(reserve_new_port)

    def __init__(self) -> None:
        super().__init__({"*": lambda _: json_reply({"status": "ok"})})

    def assert_untouched(self) -> None:
        """Fail if anybody connected, even without sending a byte."""
        assert not self.requests, f"reached: {self.requests[0].raw_head!r}"
        assert not self.connections, "reached: a connection without a request"
