"""A proxy that harms chosen exchanges between a client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from tests.support.proxy.faults import Chaos, Fault, HangUp
from tests.support.proxy.http1 import HEAD_BYTES, ReceivedRequest, read_request
from tests.support.proxy.loop import LoopThread, stop_listening
from tests.support.proxy.relay import BrokenOffError, Outlet, Relay, hang_up

__all__ = ["Exchange", "FaultProxy"]

_SECONDS: Final = 10.0


@dataclasses.dataclass(slots=True)
class Exchange:
    """A request that came, and what was done about it.

    Args:
        request: The request.
        fault: The fault that was planned for it.
        struck: Whether the fault happened; a reply without a task_id, say, has no
            point after it.
        forwarded: Whether the server got the request.
        status: The status that the client was sent, or None if it saw no head.
        done: Whether the proxy has nothing more to do about it.
    """

    request: ReceivedRequest
    fault: Fault | None = None
    struck: bool = False
    forwarded: bool = False
    status: int | None = None
    done: bool = False


@dataclasses.dataclass(slots=True)
class _Plan:
    path_suffix: str
    faults: list[Fault | None]
    forever: bool
    when: Callable[[ReceivedRequest], bool] | None

    def take(self, request: ReceivedRequest) -> tuple[bool, Fault | None]:
        """Return whether this plan decides about the request, and the fault."""
        if not request.path.endswith(self.path_suffix) or not self.faults:
            return False, None
        if self.when is not None and not self.when(request):
            return False, None
        last = self.forever and len(self.faults) == 1
        return True, self.faults[0] if last else self.faults.pop(0)


class FaultProxy:
    """Stands between a client and a server, in a thread of its own.

    Every request to the server travels on a connection of its own; the client's
    connections stay open as long as HTTP/1.1 and the faults allow. If the server is
    down, the client's connection is reset after the request.

    Args:
        upstream: The server's base URL.
        idle_close: Seconds after which an idle client connection is closed; None
            leaves that to the client.

    Attributes:
        exchanges: What happened, in the order in which requests arrived.

    Example:
        >>> from tests.support.proxy.faults import Point, Reset
        >>> with FaultProxy("http://127.0.0.1:9") as proxy:
        ...     proxy.plan("/call", [Reset(Point.AFTER_TASK_ID)])
        ...     proxy.url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(self, upstream: str, *, idle_close: float | None = None) -> None:
        address = urlsplit(upstream)
        self.exchanges: list[Exchange] = []
        self.connections = 0
        """How many connections clients have opened."""
        self._host = address.hostname or "127.0.0.1"
        self._upstream_port = address.port or 80
        self._idle_close = idle_close
        self._plans: list[_Plan] = []
        self._chaos: Chaos | None = None
        self._lock = threading.Condition()
        self._open: dict[int, asyncio.StreamWriter] = {}
        self._idle: dict[int, asyncio.StreamWriter] = {}
        self._port = 0
        self._thread = LoopThread("fault-proxy")
        self._released = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._thread.run(self._listen())

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
        """The base URL for the client."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """How many client connections are open now."""
        return len(self._open)

    def close(self) -> None:
        """End all connections and the thread."""
        self._thread.run(self._end())
        self._thread.stop()

    def plan(
        self,
        path_suffix: str = "/call",
        faults: Sequence[Fault | None] = (),
        then: Literal["pass", "forever"] = "pass",
        when: Callable[[ReceivedRequest], bool] | None = None,
    ) -> None:
        """Plan what happens to the next requests of a kind.

        The first plan that a request fits, and that is not used up, decides.

        Args:
            path_suffix: How the path ends, such as ``/call`` or ``/create``.
            faults: One for each request, in order; None passes it on unharmed.
            then: Whether requests after that pass, or all get the last fault.
            when: Only requests for which this is true, say
                ``lambda request: request.task_id is not None``. It runs in the
                proxy's thread.
        """
        with self._lock:
            self._plans.append(
                _Plan(path_suffix, list(faults), then == "forever", when)
            )

    def chaos(self, chaos: Chaos | None) -> None:
        """Let chance decide about all requests that no plan fits."""
        with self._lock:
            self._chaos = chaos

    def clear(self) -> None:
        """Forget all plans, and what was recorded."""
        with self._lock:
            self._plans.clear()
            self._chaos = None
            self.exchanges = []

    def requests(self, path_suffix: str = "") -> list[ReceivedRequest]:
        """Return the requests whose path ends so, in order of arrival."""
        with self._lock:
            found = [exchange.request for exchange in self.exchanges]
        return [request for request in found if request.path.endswith(path_suffix)]

    def struck(self) -> list[Fault]:
        """Return the faults that happened, in the order of their requests."""
        with self._lock:
            done = [exchange for exchange in self.exchanges if exchange.struck]
        return [exchange.fault for exchange in done if exchange.fault is not None]

    def wait_for(self, count: int, path_suffix: str = "") -> None:
        """Wait until so many requests whose path ends so have arrived.

        Raises:
            TimeoutError: If they do not within ten seconds.
        """
        with self._lock:
            if not self._lock.wait_for(
                lambda: len(self.requests(path_suffix)) >= count, _SECONDS
            ):
                raise TimeoutError(f"no {count} requests for {path_suffix!r} came")

    def wait_until_done(self) -> None:
        """Wait until no exchange is under way.

        Raises:
            TimeoutError: If one is still after ten seconds.
        """
        with self._lock:
            if not self._lock.wait_for(
                lambda: all(exchange.done for exchange in self.exchanges), _SECONDS
            ):
                raise TimeoutError("an exchange is still under way")

    def release(self) -> None:
        """End all stalls, also those to come."""
        self._thread.run(self._release())

    def drop_idle(self, *, reset: bool = False) -> int:
        """Close the client connections that carry no request now.

        Returns:
            How many there were. Their ends are on the way when this returns.
        """
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

    async def _end(self) -> None:
        await self._stop_listening()
        # A handler that sees the end is quiet; one that is cancelled is not.
        for writer in self._open.values():
            writer.transport.abort()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, limit=HEAD_BYTES, backlog=2048
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await stop_listening(listener)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        number = self.connections
        self._open[number] = writer
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
        except (BrokenOffError, OSError):
            return
        finally:
            self._idle.pop(number, None)
            self._open.pop(number, None)
            writer.close()

    def _record(self, request: ReceivedRequest) -> Exchange:
        exchange = Exchange(request)
        with self._lock:
            for plan in self._plans:
                decides, exchange.fault = plan.take(request)
                if decides:
                    break
            else:
                if self._chaos is not None:
                    exchange.fault = self._chaos.draw()
            self.exchanges.append(exchange)
            self._lock.notify_all()
        return exchange

    async def _exchange(
        self,
        exchange: Exchange,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Pass one exchange on, as long as the client waits for it.

        Returns:
            What the client sent of its next request meanwhile.
        """
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
            with self._lock:
                exchange.struck = outlet.struck
                exchange.forwarded = relay.forwarded
                exchange.status = outlet.status
                exchange.done = True
                self._lock.notify_all()
