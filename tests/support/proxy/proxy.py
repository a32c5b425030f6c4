"""A proxy that harms chosen exchanges between a client and a real server."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Literal
from urllib.parse import urlsplit

from tests.support.proxy import http1
from tests.support.proxy.faults import (
    Answer,
    BreakAfter,
    Chaos,
    Corrupt,
    Fault,
    HalfOpen,
    HangUp,
    OneReply,
    Point,
    PointFault,
    Reset,
    Stall,
    Trickle,
    Truncate,
)
from tests.support.proxy.loop import LoopServer, hang_up


class BrokenOffError(Exception):
    """Raised when the client's connection was ended by a fault."""


@dataclasses.dataclass(slots=True)
class Exchange:
    request: http1.ReceivedRequest
    fault: Fault | None = None
    # A fault may not happen: a reply without a task_id has no point after it.
    struck: bool = False
    forwarded: bool = False  # whether the server got the request
    status: int | None = None  # what the client was sent; None if it saw no head
    done: bool = False


@dataclasses.dataclass(slots=True)
class _Plan:
    path_suffix: str | tuple[str, ...]
    faults: list[Fault | None]
    forever: bool
    when: Callable[[http1.ReceivedRequest], bool] | None

    def take(self, request: http1.ReceivedRequest) -> tuple[bool, Fault | None]:
        if not request.path.endswith(self.path_suffix) or not self.faults:
            return False, None
        if self.when is not None and not self.when(request):
            return False, None
        last = self.forever and len(self.faults) == 1
        return True, self.faults[0] if last else self.faults.pop(0)


class FaultProxy(LoopServer):
    """Stands between a client and a server.

    Every request to the server travels on a connection of its own; the client's
    connections stay open as long as HTTP/1.1 and the faults allow. If the server is
    down, the client's connection is reset after the request.
    """

    def __init__(self, upstream: str, *, idle_close: float | None = None) -> None:
        address = urlsplit(upstream)
        self.exchanges: list[Exchange] = []
        self._host = address.hostname or "127.0.0.1"
        self._upstream_port = address.port or 80
        self._idle_close = idle_close
        self._plans: list[_Plan] = []
        self._chaos: Chaos | None = None
        self._idle: dict[int, asyncio.StreamWriter] = {}
        self._released = asyncio.Event()
        super().__init__("fault-proxy")

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def plan(
        self,
        path_suffix: str | tuple[str, ...] = "/call",
        faults: Sequence[Fault | None] = (),
        then: Literal["pass", "forever"] = "pass",
        when: Callable[[http1.ReceivedRequest], bool] | None = None,
    ) -> None:
        """Plan what happens to the next requests of a kind.

        The first plan that a request fits, and that is not used up, decides.
        """
        with self._changed:
            self._plans.append(
                _Plan(path_suffix, list(faults), then == "forever", when)
            )

    def chaos(self, chaos: Chaos | None) -> None:
        """Let chance decide about all requests that no plan fits."""
        with self._changed:
            self._chaos = chaos

    def clear(self) -> None:
        with self._changed:
            self._plans.clear()
            self._chaos = None
            self.exchanges = []

    def requests(self, path_suffix: str = "") -> list[http1.ReceivedRequest]:
        with self._changed:
            found = [exchange.request for exchange in self.exchanges]
        return [request for request in found if request.path.endswith(path_suffix)]

    def struck(self) -> list[Fault]:
        with self._changed:
            done = [exchange for exchange in self.exchanges if exchange.struck]
        return [exchange.fault for exchange in done if exchange.fault is not None]

    def wait_for(self, count: int, path_suffix: str = "") -> None:
        self.await_that(
            lambda: len(self.requests(path_suffix)) >= count,
            f"no {count} requests for {path_suffix!r} came",
        )

    def wait_until_done(self) -> None:
        self.await_that(
            lambda: all(exchange.done for exchange in self.exchanges),
            "an exchange is still under way",
        )

    def release(self) -> None:
        """End all stalls, also those to come."""
        self._thread.run(self._release())

    def drop_idle(self, *, reset: bool = False) -> int:
        """Close the client connections that carry no request now."""
        return self._thread.run(self._drop(self._idle, reset=reset))

    def drop_all(self, *, reset: bool = True) -> int:
        """Break all client connections, in the middle of an exchange or not."""
        return self._thread.run(self._drop(self._open, reset=reset))

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections, as a server that is down; open ones stay."""
        self._thread.run(self._stop_listening())
        try:
            yield
        finally:
            self._thread.run(self._listen())

    async def _release(self) -> None:
        self._released.set()

    async def _drop(
        self, chosen: dict[int, asyncio.StreamWriter], *, reset: bool
    ) -> int:
        dropped = list(chosen.items())
        for number, writer in dropped:
            self._open.pop(number, None)
            self._idle.pop(number, None)
            await hang_up(writer, reset=reset)
        return len(dropped)

    async def serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass exchanges on until the client, its idle time or a fault ends them."""
        begun, first = b"", True
        limit, reset = self._idle_close, False
        try:
            while True:
                self._idle[number] = writer
                async with asyncio.timeout(limit):
                    request = await http1.read_request(reader, number, begun)
                if request is None or writer.is_closing():
                    return  # what came after the end was decided is not served
                del self._idle[number]
                exchange = self.record(request, first=first)
                begun = await self._exchange(exchange, reader, writer)
                first = False
                limit, reset = self._idle_close, False
                if isinstance(exchange.fault, HangUp):
                    limit, reset = exchange.fault.after, exchange.fault.reset
        except TimeoutError:
            await hang_up(writer, reset=reset)
        except BrokenOffError:
            return
        finally:
            self._idle.pop(number, None)

    def upstream(self, request: http1.ReceivedRequest) -> tuple[str, int]:
        """Return host and port of the server that a request is for."""
        return self._host, self._upstream_port

    def record(self, request: http1.ReceivedRequest, *, first: bool) -> Exchange:
        exchange = Exchange(request)
        with self._changed:
            for plan in self._plans:
                decides, exchange.fault = plan.take(request)
                if decides:
                    break
            else:
                if self._chaos is not None:
                    exchange.fault = self._chaos.draw()
            if isinstance(exchange.fault, OneReply):
                # Of the first request of a connection there is nothing to break.
                point = (
                    Point.BEFORE_REPLY if exchange.fault.ran else Point.BEFORE_REQUEST
                )
                exchange.fault = None if first else Reset(point)
            # These happen in any case.
            exchange.struck = isinstance(exchange.fault, Trickle | HangUp)
            self.exchanges.append(exchange)
            self._changed.notify_all()
        return exchange

    async def _exchange(
        self,
        exchange: Exchange,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Pass one exchange on, as long as the client waits for it."""
        relay = Relay(Outlet(writer, exchange), exchange, self._released)
        work = asyncio.create_task(relay.run(exchange.request, self.upstream))
        watch = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({work, watch}, return_when="FIRST_COMPLETED")
            if watch.done() and not watch.result():
                raise BrokenOffError
            try:
                await work
            except (OSError, EOFError) as error:
                # The server is down, or went down in the middle of its reply.
                await hang_up(writer, reset=True)
                raise BrokenOffError from error
            return watch.result() if watch.done() else b""
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
            with self._changed:
                exchange.done = True
                self._changed.notify_all()


class Outlet:
    def __init__(self, writer: asyncio.StreamWriter, exchange: Exchange) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # `drain` empties it
        self.writer = writer
        # What happens is noted before its first byte is written: a test that has the
        # reply finds it noted.
        self._exchange = exchange
        self._fault = fault = exchange.fault
        self._left = fault.count if isinstance(fault, BreakAfter) else None
        self._overwrite = b""
        self._chunked = False

    @property
    def framed(self) -> bool:
        """Whether the body can end early without breaking HTTP's framing."""
        return self._chunked

    async def head(self, reply: http1.Reply) -> None:
        self._exchange.status = reply.status
        self._chunked = reply.chunked
        await self._write(reply.raw_head)

    async def body(self, data: bytes) -> None:
        data = self._overwrite[: len(data)] + data[len(self._overwrite) :]
        self._overwrite = b""
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._write(data)

    async def whole(self, answer: Answer) -> None:
        self._exchange.struck = True
        self._exchange.status = answer.status
        await self._write(
            http1.reply_bytes(
                answer.status, answer.body, answer.headers, answer.content_type
            )
        )

    async def end(self) -> None:
        if self._chunked:
            await self._write(b"0\r\n\r\n")

    def overwrite(self, data: bytes) -> None:
        """Write this in place of the bytes that come next."""
        self._overwrite = data
        self._exchange.struck = True

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
        self._exchange.struck = True
        await hang_up(self.writer, reset=self._fault.reset)
        raise BrokenOffError


class Relay:
    def __init__(
        self, outlet: Outlet, exchange: Exchange, released: asyncio.Event
    ) -> None:
        self._outlet = outlet
        self._exchange = exchange
        self._fault = exchange.fault
        self._released = released
        self._upstream: asyncio.StreamWriter | None = None

    async def run(
        self,
        request: http1.ReceivedRequest,
        upstream: Callable[[http1.ReceivedRequest], tuple[str, int]],
    ) -> None:
        fault = self._fault
        if isinstance(fault, Answer) and not fault.ran:
            await self._outlet.whole(fault)
            return
        if self._is_at(Point.BEFORE_REQUEST):
            await self._strike(None)
        reader, writer = await asyncio.open_connection(
            *upstream(request), limit=http1.HEAD_BYTES
        )
        self._upstream = writer
        try:
            writer.write(request.raw_head + request.body)
            self._exchange.forwarded = True
            await self._answer(reader)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        early = isinstance(self._fault, PointFault) and not self._fault.finish
        if early and self._is_at(Point.BEFORE_REPLY):
            await self._strike(None)
        reply = await http1.read_reply(reader)
        parts = _segments(http1.read_body(reader, reply), events=reply.is_stream)
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
        return self._fault.at is point and not self._exchange.struck

    async def _strike(self, parts: AsyncIterator[bytes | Point] | None) -> None:
        """Let the fault happen now; return if the reply goes on after it."""
        fault = self._fault
        if isinstance(fault, PointFault) and fault.finish and parts is not None:
            await _drain(parts)
        self._exchange.struck = True
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
