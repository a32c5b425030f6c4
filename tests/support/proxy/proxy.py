"""A proxy that harms chosen exchanges between a client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal
from urllib.parse import urlsplit

from tests.support.proxy.faults import Chaos, Fault, HangUp
from tests.support.proxy.http1 import ReceivedRequest, read_request
from tests.support.proxy.loop import LoopServer
from tests.support.proxy.relay import BrokenOffError, Outlet, Relay, hang_up


@dataclasses.dataclass(slots=True)
class Exchange:
    request: ReceivedRequest
    fault: Fault | None = None
    # A fault may not happen: a reply without a task_id has no point after it.
    struck: bool = False
    forwarded: bool = False
    status: int | None = None  # what the client was sent; None if it saw no head
    done: bool = False


@dataclasses.dataclass(slots=True)
class _Plan:
    path_suffix: str
    faults: list[Fault | None]
    forever: bool
    when: Callable[[ReceivedRequest], bool] | None

    def take(self, request: ReceivedRequest) -> tuple[bool, Fault | None]:
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
        path_suffix: str = "/call",
        faults: Sequence[Fault | None] = (),
        then: Literal["pass", "forever"] = "pass",
        when: Callable[[ReceivedRequest], bool] | None = None,
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

    def requests(self, path_suffix: str = "") -> list[ReceivedRequest]:
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
        begun = b""
        limit, reset = self._idle_close, False
        try:
            while True:
                self._idle[number] = writer
                async with asyncio.timeout(limit):
                    request = await read_request(reader, number, begun)
                if request is None or writer.is_closing():
                    return  # what came after the end was decided is not served
                del self._idle[number]
                exchange = self._record(request)
                begun = await self._exchange(exchange, reader, writer)
                limit, reset = self._idle_close, False
                if isinstance(exchange.fault, HangUp):
                    limit, reset = exchange.fault.after, exchange.fault.reset
                    exchange.struck = True
        except TimeoutError:
            await hang_up(writer, reset=reset)
        except BrokenOffError:
            return
        finally:
            self._idle.pop(number, None)

    def _record(self, request: ReceivedRequest) -> Exchange:
        exchange = Exchange(request)
        with self._changed:
            for plan in self._plans:
                decides, exchange.fault = plan.take(request)
                if decides:
                    break
            else:
                if self._chaos is not None:
                    exchange.fault = self._chaos.draw()
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
        outlet = Outlet(writer, exchange.fault)
        relay = Relay(outlet, exchange.fault, self._released)
        work = asyncio.create_task(
            relay.run(exchange.request, self._host, self._upstream_port)
        )
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
                exchange.struck = outlet.struck
                exchange.forwarded = relay.forwarded
                exchange.status = outlet.status
                exchange.done = True
                self._changed.notify_all()
