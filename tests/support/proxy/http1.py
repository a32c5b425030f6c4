"""As much of HTTP/1.1 as a proxy in a test needs, read from asyncio streams."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any, Final

HEAD_BYTES: Final = 1 << 20  # the ``limit`` for streams that these functions read


@dataclasses.dataclass(frozen=True, slots=True)
class ReceivedRequest:
    method: str
    target: str  # path and query, as sent
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int  # the number of the connection, counted from 1
    raw_head: bytes

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def session_id(self) -> str | None:
        return self.header("X-Session-ID")

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def task_id(self) -> str | None:
        value = self.json
        return value.get("task_id") if isinstance(value, dict) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """A reply's head; its body is still in the stream."""

    status: int
    raw_head: bytes
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        found = (value for key, value in self.headers if key.lower() == name.lower())
        return next(found, "")

    @property
    def chunked(self) -> bool:
        return "chunked" in self.header("Transfer-Encoding").lower()

    @property
    def is_stream(self) -> bool:
        return self.header("Content-Type").startswith("text/event-stream")


def _split_head(raw: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    first, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, tuple((name, value.strip()) for name, _, value in pairs)


async def read_request(
    reader: asyncio.StreamReader, connection: int, begun: bytes = b""
) -> ReceivedRequest | None:
    """Read one request; None if the client is gone."""
    try:
        raw = begun + await reader.readuntil(b"\r\n\r\n")
        first, headers = _split_head(raw)
        method, target, _ = first.split(" ", 2)
        given = {name.lower(): value for name, value in headers}
        if "chunked" in given.get("transfer-encoding", "").lower():
            body = b"".join([piece async for piece in _chunks(reader)])
        else:
            body = await reader.readexactly(int(given.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return ReceivedRequest(method, target, headers, body, connection, raw)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, headers = _split_head(raw)
    return Reply(int(first.split(" ", 2)[1]), raw, headers)


async def read_body(reader: asyncio.StreamReader, reply: Reply) -> AsyncIterator[bytes]:
    """Yield a reply's body as it arrives, without the framing of its chunks."""
    if reply.chunked:
        async for piece in _chunks(reader):
            yield piece
        return
    left = int(reply.header("Content-Length") or "0")
    while left:
        piece = await reader.read(min(left, 65536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass


def reply_bytes(
    status: int,
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str = "application/json",
) -> bytes:
    lines = [f"HTTP/1.1 {status} -"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
