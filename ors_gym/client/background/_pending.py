"""Work of another thread, whose result waiters get without a lock of Python code.

The lock of a `concurrent.futures.Future` is taken in Python code, where a signal's
handler can interrupt it. The lock then stays taken, and the thread that has the result
waits for it for ever. A `queue.SimpleQueue` is written in C and has no such place.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

SIGNAL_SECONDS: Final = 0.5
"""How often a thread that waits looks for signals. A signal that arrives just before
the wait, or in another thread, does not wake it."""


class Completion(NamedTuple, Generic[T]):
    """What a function returned or raised, whatever it is.

    Neither a task nor a future holds all of that. A future refuses StopIteration; a
    task passes SystemExit and KeyboardInterrupt on to its event loop, which then stops.
    """

    value: T | None
    error: BaseException | None = None

    def get(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # it is there without an error


async def completion_of(work: Awaitable[T]) -> Completion[T]:
    try:
        return Completion(await work)
    except BaseException as error:  # noqa: BLE001 - whoever asks for it gets it
        return Completion(None, error)


def wait_for_item(told: queue.SimpleQueue[None], seconds: float) -> bool:
    """Wait until something is put there, and tell whether it was."""
    try:
        told.get(timeout=seconds)
    except queue.Empty:
        return False
    return True


class Pending(Generic[T]):
    """Work on the event loop of another thread, and its completion once it has ended.

    Whoever made it may cancel it at any time, also before or while it starts it.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Completion[T]] | None = None
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._callbacks: deque[Callable[[Pending[T]], object]] = deque()
        self.completion: Completion[T] | None = None
        """What came of it; None while it is under way."""

    def start(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]
    ) -> None:
        """Run a coroutine on a loop; raises RuntimeError where the loop is closed."""
        self._loop = loop
        try:
            loop.call_soon_threadsafe(self._start, work)
        except RuntimeError:
            work.close()
            raise

    def cancel(self) -> None:
        """Have the work cancelled."""
        with contextlib.suppress(RuntimeError):  # on a closed loop nothing runs
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._cancel)
                return
        self._settle_as_cancelled()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait some seconds for the completion, and tell whether it is there."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.completion is None:
            seconds = SIGNAL_SECONDS
            if until is not None:
                seconds = min(seconds, until - time.monotonic())
            if seconds <= 0:
                return False
            if wait_for_item(self._told, seconds):
                self._told.put(None)  # for others that wait
            if self._loop is None or self._loop.is_closed():
                self._settle_as_cancelled()
        return True

    def result(self, timeout: float | None = None) -> T:
        """Wait for the completion; return what the work returned, or raise its error.

        Raises:
            TimeoutError: If the work has not ended after so many seconds.
        """
        if not self.wait(timeout) or self.completion is None:
            raise TimeoutError(f"not ended after {timeout} s")
        return self.completion.get()

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait_on_loop().__await__()

    async def _wait_on_loop(self) -> T:
        loop = asyncio.get_running_loop()
        told = loop.create_future()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits on a closed loop
                loop.call_soon_threadsafe(_set, told)

        self.add_done_callback(tell)
        try:
            await told
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result()

    async def settled(self) -> None:
        """Wait on the work's own loop until it has ended, and never cancel it."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def add_done_callback(self, callback: Callable[[Pending[T]], object]) -> None:
        """Have a function called once the work has ended, here or on its thread."""
        self._callbacks.append(callback)
        if self.completion is not None:
            self._call_back()

    def _start(self, work: Coroutine[Any, Any, T]) -> None:
        if self.completion is not None:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(completion_of(work))
        self._task = task
        task.add_done_callback(partial(self._end, work))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            # `start` was interrupted before it told the loop.
            self._settle_as_cancelled()

    def _end(
        self, work: Coroutine[Any, Any, T], task: asyncio.Task[Completion[T]]
    ) -> None:
        if task.cancelled():
            work.close()  # it never began
            self._settle_as_cancelled()
        else:
            self._settle(task.result())

    def _settle_as_cancelled(self) -> None:
        if self.completion is None:
            self._settle(Completion(None, asyncio.CancelledError()))

    def _settle(self, completion: Completion[T]) -> None:
        self.completion = completion
        self._told.put(None)
        self._call_back()

    def _call_back(self) -> None:
        """Call each function once, whichever thread comes to it first."""
        while True:
            try:
                callback = self._callbacks.popleft()
            except IndexError:
                return
            callback(self)


def _set(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
