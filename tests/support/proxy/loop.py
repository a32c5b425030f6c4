"""An event loop in a thread of its own, for servers that live beside a test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

__all__ = ["LoopThread", "stop_listening"]

T = TypeVar("T")
_SECONDS: Final = 10.0


class LoopThread:
    """Runs coroutines of a server while the test's own thread does something else.

    Args:
        name: The thread's name.

    Example:
        >>> async def answer() -> int:
        ...     return 42
        >>> loop = LoopThread("example")
        >>> loop.run(answer())
        42
        >>> loop.stop()
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=name, daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns.

        Raises:
            TimeoutError: If it takes more than ten seconds.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(_SECONDS)

    def stop(self) -> None:
        """Cancel whatever runs, and end the thread."""
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


async def stop_listening(listener: asyncio.Server) -> None:
    """Close a listener; what asyncio has accepted is served or ended first.

    A connection that asyncio is about to hand to a closed listener is leaked
    (CPython issue 109564).
    """
    for listening in listener.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    await _some_turns()
    listener.close()


async def _some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
