"""Passes one exchange on, up to the point of its fault."""

from __future__ import annotations

import asyncio
import socket
import struct
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from typing import Final

from tests.support.proxy.faults import (
    Answer,
    BreakAfter,
    Corrupt,
    Fault,
    HalfOpen,
    Point,
    PointFault,
    Reset,
    Stall,
    Trickle,
    Truncate,
)
from tests.support.proxy.http1 import (
    HEAD_BYTES,
    ReceivedRequest,
    Reply,
    read_body,
    read_reply,
    reply_bytes,
)

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class BrokenOffError(Exception):
    """Raised when the client's connection was ended by a fault."""


async def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """End a connection, with a RST or with a FIN; what was written arrives before."""
    if not reset or writer.is_closing():
        writer.close()
        return
    connection = writer.get_extra_info("socket")
    unsent = bytearray(4)
    while True:
        # A RST discards what the peer's kernel has not taken yet.
        ioctl(connection, termios.TIOCOUTQ, unsent)
        if not any(unsent):
            break
        await asyncio.sleep(0.001)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()


class Outlet:
    def __init__(self, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # `drain` empties it
        self.writer = writer
        self.status: int | None = None  # the status of the head that was written
        self.struck = isinstance(fault, Trickle)  # whether the fault has happened
        self._fault = fault
        self._left = fault.count if isinstance(fault, BreakAfter) else None
        self._overwrite = b""
        self._chunked = False

    @property
    def framed(self) -> bool:
        """Whether the body can end early without breaking HTTP's framing."""
        return self._chunked

    async def head(self, reply: Reply) -> None:
        self.status = reply.status
        self._chunked = reply.chunked
        await self._write(reply.raw_head)

    async def body(self, data: bytes) -> None:
        data = self._overwrite[: len(data)] + data[len(self._overwrite) :]
        self._overwrite = b""
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._write(data)

    async def whole(self, answer: Answer) -> None:
        self.struck = True
        self.status = answer.status
        await self._write(
            reply_bytes(answer.status, answer.body, answer.headers, answer.content_type)
        )

    async def end(self) -> None:
        if self._chunked:
            await self._write(b"0\r\n\r\n")

    def overwrite(self, data: bytes) -> None:
        """Write this in place of the bytes that come next."""
        self._overwrite = data
        self.struck = True

    async def _write(self, data: bytes) -> None:
        if isinstance(self._fault, Trickle):
            for place in range(len(data)):
                self.writer.write(data[place : place + 1])
                await self.writer.drain()
                await asyncio.sleep(0)
            return
        if self._left is not None and len(data) > self._left:
            self.writer.write(data[: self._left])
            await self._break()
        if self._left is not None:
            self._left -= len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def _break(self) -> None:
        assert isinstance(self._fault, BreakAfter)
        self.struck = True
        await hang_up(self.writer, reset=self._fault.reset)
        raise BrokenOffError


class Relay:
    def __init__(
        self, outlet: Outlet, fault: Fault | None, released: asyncio.Event
    ) -> None:
        self.forwarded = False  # whether the server got the request
        self._outlet = outlet
        self._fault = fault
        self._released = released
        self._upstream: asyncio.StreamWriter | None = None

    async def run(self, request: ReceivedRequest, host: str, port: int) -> None:
        fault = self._fault
        if isinstance(fault, Answer) and not fault.ran:
            await self._outlet.whole(fault)
            return
        if self._is_at(Point.BEFORE_REQUEST):
            await self._strike(None)
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES)
        self._upstream = writer
        try:
            writer.write(request.raw_head + request.body)
            self.forwarded = True
            await self._answer(reader)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        early = isinstance(self._fault, PointFault) and not self._fault.finish
        if early and self._is_at(Point.BEFORE_REPLY):
            await self._strike(None)
        reply = await read_reply(reader)
        parts = _segments(read_body(reader, reply), events=reply.is_stream)
        if isinstance(self._fault, Answer):
            await _drain(parts)
            await self._outlet.whole(self._fault)
            return
        if self._is_at(Point.BEFORE_REPLY):
            await self._strike(parts)
        await self._outlet.head(reply)
        async for part in parts:
            if not isinstance(part, Point):
                await self._outlet.body(part)
            elif self._is_at(part):
                await self._strike(parts)
                if isinstance(self._fault, Truncate):
                    break
        await self._outlet.end()

    def _is_at(self, point: Point) -> bool:
        if not isinstance(self._fault, PointFault | Stall | Corrupt):
            return False
        return self._fault.at is point and not self._outlet.struck

    async def _strike(self, parts: AsyncIterator[bytes | Point] | None) -> None:
        """Let the fault happen now; return if the reply goes on after it."""
        fault = self._fault
        if isinstance(fault, PointFault) and fault.finish and parts is not None:
            await _drain(parts)
        self._outlet.struck = True
        if isinstance(fault, Corrupt):
            self._outlet.overwrite(fault.data)
        elif isinstance(fault, Stall):
            await self._wait(fault.seconds)
        elif isinstance(fault, HalfOpen):
            if self._upstream is not None:
                self._upstream.close()
            await asyncio.Event().wait()
        elif not (isinstance(fault, Truncate) and self._outlet.framed):
            await hang_up(self._outlet.writer, reset=isinstance(fault, Reset))
            raise BrokenOffError

    async def _wait(self, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(self._released.wait(), seconds)
        except TimeoutError:
            return


async def _drain(parts: AsyncIterator[bytes | Point]) -> None:
    async for _ in parts:
        pass


async def _segments(
    pieces: AsyncIterator[bytes], *, events: bool
) -> AsyncIterator[bytes | Point]:
    """Yield the parts of a body, and the points between them."""
    yield Point.AFTER_HEAD
    if events:
        async for part in _event_segments(pieces):
            yield part
        return
    yield Point.AFTER_TASK_ID
    body = b"".join([piece async for piece in pieces])
    middle = len(body) // 2
    if middle:
        yield body[:middle]
        yield Point.IN_CHUNK
        yield body[middle:-1]
        yield Point.BEFORE_END
        yield body[-1:]


async def _event_segments(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes | Point]:
    buffered = b""
    halved = False
    async for piece in pieces:
        buffered += piece
        *blocks, buffered = buffered.split(b"\r\n\r\n")
        for block in blocks:
            event = _event_of(block)
            whole = block + b"\r\n\r\n"
            if event in {b"end", b"error"}:
                yield Point.BEFORE_END
            if event in {b"chunk", b"end"} and not halved:
                halved = True
                middle = len(whole) // 2
                yield whole[:middle]
                yield Point.IN_CHUNK
                whole = whole[middle:]
            yield whole
            if event == b"task_id":
                yield Point.AFTER_TASK_ID
    if buffered:
        yield buffered


def _event_of(block: bytes) -> bytes:
    for line in block.split(b"\r\n"):
        if line.startswith(b"event: "):
            return line[7:]
    return b""
