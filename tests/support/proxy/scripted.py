"""A server that sends exactly the bytes that a test wants sent."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from tests.support.proxy.http1 import (
    HEAD_BYTES,
    ReceivedRequest,
    read_request,
    reply_bytes,
)
from tests.support.proxy.loop import LoopThread, stop_listening
from tests.support.proxy.relay import hang_up

__all__ = [
    "Handler",
    "OtherOrigin",
    "RawReply",
    "ScriptedServer",
    "event_stream",
    "html_reply",
    "json_reply",
    "status_reply",
    "stream_reply",
]

_SECONDS: Final = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class RawReply:
    """What to send for one request.

    Args:
        pieces: The bytes, each piece in a write of its own. May be endless, or an
            asynchronous iterator that waits in between.
        then: What follows: ``keep`` the connection for another request, ``close`` it,
            ``reset`` it, or ``hold`` it open without a byte.
    """

    pieces: Iterable[bytes] | AsyncIterator[bytes]
    then: str = "keep"


Handler: TypeAlias = Callable[[ReceivedRequest], RawReply]
"""Answers a request; runs in the server's thread."""


def json_reply(
    value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> RawReply:
    """Return a reply of JSON."""
    return RawReply([reply_bytes(status, json.dumps(value).encode(), headers)])


def html_reply(text: str, status: int = 200) -> RawReply:
    """Return a reply of HTML."""
    return RawReply([reply_bytes(status, text.encode(), content_type="text/html")])


def status_reply(status: int, *headers: tuple[str, str]) -> RawReply:
    """Return a reply without a body."""
    return RawReply([reply_bytes(status, b"", headers)])


def event_stream(*events: tuple[str, str]) -> bytes:
    r"""Return events as both SDKs write them, with CRLF.

    Example:
        >>> event_stream(("task_id", "7f"))
        b'event: task_id\r\ndata: 7f\r\n\r\n'
    """
    blocks = []
    for event, data in events:
        lines = "".join(f"data: {line}\r\n" for line in data.split("\n"))
        blocks.append(f"event: {event}\r\n{lines}\r\n")
    return "".join(blocks).encode()


def stream_reply(
    *pieces: bytes, then: str = "keep", headers: tuple[tuple[str, str], ...] = ()
) -> RawReply:
    """Return a chunked reply of events.

    Args:
        *pieces: The body; each piece becomes a chunk, written by itself.
        then: As in `RawReply`; with ``keep`` the body is complete, with anything else
            its last chunk is missing.
        headers: Header lines beside Content-Type and Transfer-Encoding.
    """
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream; charset=utf-8"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked"]) + "\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    end = [b"0\r\n\r\n"] if then == "keep" else []
    return RawReply([head.encode("latin-1"), *chunks, *end], then)


class ScriptedServer:
    """Serves handlers, in a thread of its own, over HTTP/1.1 with keep-alive.

    Args:
        handlers: A handler for each path, or for ``METHOD path``, or for the end of a
            path that begins with ``*``, such as ``*/call``. Others get 404 as both
            SDKs answer it. The mapping may be changed while the server runs.

    Attributes:
        requests: What came, in order of arrival.

    Example:
        >>> import httpx
        >>> with ScriptedServer({"/health": lambda request: json_reply(1)}) as server:
        ...     httpx.get(f"{server.url}/health").text
        '1'
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.handlers = handlers
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        """How many connections clients have opened."""
        self._changed = threading.Condition()
        self._writers: list[asyncio.StreamWriter] = []
        self._port = 0
        self._thread = LoopThread("scripted-server")
        self._listener = self._thread.run(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """End all connections and the thread."""
        self._thread.run(self._stop_listening())
        self._thread.stop()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have arrived.

        Raises:
            TimeoutError: If they do not within ten seconds.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: len(self.requests) >= count, _SECONDS
            ):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came")

    async def _listen(self) -> asyncio.Server:
        listener = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=HEAD_BYTES, backlog=2048
        )
        self._port = listener.sockets[0].getsockname()[1]
        return listener

    async def _stop_listening(self) -> None:
        await stop_listening(self._listener)
        # Also those whose last bytes nobody takes. A handler that sees the end is
        # quiet, one that is cancelled is not.
        for writer in self._writers:
            writer.transport.abort()

    def _handler(self, request: ReceivedRequest) -> Handler:
        path = request.path
        for name in (f"{request.method} {path}", path):
            if name in self.handlers:
                return self.handlers[name]
        for name, handler in self.handlers.items():
            if name.startswith("*") and path.endswith(name[1:]):
                return handler
        return lambda _: json_reply({"detail": "Not Found"}, 404)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        number = self.connections
        self._writers.append(writer)
        try:
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
        except OSError:
            return  # the client is gone
        finally:
            writer.close()


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

    def __init__(self) -> None:
        super().__init__({"*": lambda _: json_reply({"status": "ok"})})

    def assert_untouched(self) -> None:
        """Fail if anybody connected, even without sending a byte."""
        assert not self.requests, f"reached: {self.requests[0].raw_head!r}"
        assert not self.connections, "reached: a connection without a request"
