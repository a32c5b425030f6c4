"""One thread in which an environment does everything, one call after the other."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions in a thread of its own, in the order in which they come.

    The event loop stays free for other requests, such as pings. The thread is always
    the same one, since many environments may only be used where they were made, and
    few may be used by two threads at a time. It is a daemon, so that an environment
    that hangs does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._queue = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have a function run; it gets its turn even if nobody waits for it."""
        future: Future[T] = Future()
        # A future that was cancelled would not run.
        future.set_running_or_notify_cancel()
        self._queue.put((future, function))
        return future

    async def run(self, function: Callable[[], T]) -> T:
        """Have a function run, and return what it returns."""
        return await asyncio.wrap_future(self.submit(function))

    def _work(self) -> None:
        while True:
            future, function = self._queue.get()
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                future.set_exception(_awaitable(error))
            except BaseException as error:  # noqa: BLE001 - it must not end the thread
                future.set_exception(RuntimeError(f"it raised {error!r}"))
            else:
                future.set_result(result)
            # Neither may keep an environment alive while nothing is to do.
            del future, function


def _awaitable(error: Exception) -> Exception:
    """Replace an exception that no coroutine can raise; who waits would hang."""
    if not isinstance(error, StopIteration):
        return error
    replaced = RuntimeError("it raised StopIteration")
    replaced.__cause__ = error
    return replaced
