"""Servers that live beside a test, on an event loop in a thread of their own."""

import asyncio
import contextlib
import socket
import struct
import termios
import threading
from collections.abc import Callable, Coroutine
from fcntl import ioctl
from typing import Any, Final, Self, TypeVar

from tests.support.ports import port_of, reserve_port
from tests.support.proxy.http1 import HEAD_BYTES

T = TypeVar("T")
_SECONDS: Final = 20.0
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class LoopServer:
    """Listens on a free port until its block ends; `serve` answers a connection."""

    reserve = staticmethod(reserve_port)

    def __init__(self, name: str) -> None:
        self.connections = 0  # how many connections clients have opened
        self._reserved = self.reserve()
        self._port = port_of(self._reserved)
        self._changed = threading.Condition()
        self._open: dict[int, asyncio.StreamWriter] = {}
        self._thread = LoopThread(name)
        self._listener: asyncio.Server | None = None
        self._thread.run(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._end())
        self._thread.stop()
        self._reserved.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer what comes on the connection of this number, counted from 1."""
        raise NotImplementedError

    def await_that(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait, at most twenty seconds, for what `_changed` is notified of."""
        with self._changed:
            if not self._changed.wait_for(condition, _SECONDS):
                raise TimeoutError(complaint)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._accept,
            "127.0.0.1",
            self._port,
            limit=HEAD_BYTES,
            backlog=2048,
            reuse_port=True,
        )

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        number = self.connections
        self._open[number] = writer
        try:
            await self.serve(number, reader, writer)
        except OSError:
            return  # the client is gone
        finally:
            self._open.pop(number, None)
            writer.close()

    async def _stop_listening(self) -> None:
        """Close the listener; what asyncio has accepted is served or ended first.

        A connection that asyncio is about to hand to a closed listener is leaked
        (CPython issue 109564).
        """
        if self._listener is not None:
            listener, self._listener = self._listener, None
            for listening in listener.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            await _some_turns()
            listener.close()

    async def _end(self) -> None:
        await self._stop_listening()
        # Also those whose last bytes nobody takes. A handler that sees the end is
        # quiet; one that is cancelled is not.
        for writer in self._open.values():
            writer.transport.abort()


class LoopThread:
    """Runs coroutines of a server while the test's own thread does something else."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=name, daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(_SECONDS)

    def stop(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    async def _cancel_all(self) -> None:
        # Whoever can end by itself does so.
        await _some_turns()
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A transport that was closed drops its socket in a later turn.
        await _some_turns()


async def _some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


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
