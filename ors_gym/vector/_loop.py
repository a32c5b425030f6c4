"""The event loop of a vector env, which turns only while somebody waits for it.

The calling thread drives it: a thread of its own would cost two switches for each
batch, and fight for the interpreter while a policy computes. Nothing is lost while the
loop stands still: requests have left, replies wait in the kernel, and the background
thread sends the heartbeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import selectors
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from ors_gym._system import register_for_fork
from ors_gym.client.background._pending import SIGNAL_SECONDS, wait_for_item
from ors_gym.errors import InvalidRequestError, SessionClosedError

T = TypeVar("T")

_CLOSED: Final = "the vector env was closed; make a new one"
_END_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 1.0
_CANCEL_PAUSE: Final = 0.01
_inherited: Final[list[asyncio.AbstractEventLoop]] = []
"""Loops that ran in another thread when the process was forked: never finalised."""


class SlotLoop:
    """Runs the work of numbered slots, at most one piece each.

    Where the calling thread runs an event loop already (a notebook, an async trainer),
    a helper thread drives for as long as a call takes. After `end`, whatever waits
    raises SessionClosedError, except with ``closing``.
    """

    def __init__(self) -> None:
        self._driving = threading.Lock()
        """Held by the thread that drives."""
        self._driver = 0
        """The identity of the thread that drove last."""
        self.ended = False
        """Whether `end` was called."""
        self._begin_anew()
        register_for_fork(self)

    def _begin_anew(self) -> None:
        self._selector = _OwnSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._finished: dict[int, None] = {}
        self._awaited: set[int] | None = None
        self._missing = 0

    @property
    def busy(self) -> Sequence[int]:
        """The slots whose work is under way, or finished and not taken."""
        return list(self._tasks)

    @property
    def finished(self) -> Sequence[int]:
        """The slots whose work is finished and not taken, in the order they came."""
        return list(self._finished)

    def start(self, slot: int, work: Coroutine[Any, Any, Any]) -> None:
        """Start the work of a slot that is not busy; it runs when the loop turns."""
        task = self._tasks[slot] = self._loop.create_task(work)
        task.add_done_callback(partial(self._finish, slot))

    def _finish(self, slot: int, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(slot) is not task:
            return
        self._finished[slot] = None
        if self._awaited is None or slot in self._awaited:
            self._missing -= 1
            if self._missing == 0:
                self._loop.stop()

    def turn(self) -> None:
        """Let all work go as far as it comes without waiting."""
        self._loop.call_soon(self._loop.stop)
        self._drive()

    def wait_for(self, slots: Iterable[int]) -> None:
        """Wait until the work of all these busy slots is finished."""
        self._awaited = {slot for slot in slots if slot not in self._finished}
        self._missing = len(self._awaited)
        while self._missing > 0:
            self._drive()

    def wait_for_any(self, count: int) -> None:
        """Wait until the work of ``count`` slots is finished; so many must be busy."""
        self._awaited = None
        self._missing = count - len(self._finished)
        while self._missing > 0:
            self._drive()

    def failure(self, slot: int) -> BaseException | None:
        """Return what a slot's finished work raised, if anything."""
        return self._tasks[slot].exception()

    def take(self, slot: int) -> Any:
        """Return what a slot's work returned, or raise what it raised.

        The slot is no longer busy then.
        """
        self._finished.pop(slot, None)
        return self._tasks.pop(slot).result()

    def cancel(self, slots: Iterable[int], *, closing: bool = False) -> None:
        """Cancel the work of slots, in bounded time, and drop its results."""
        tasks = [self._tasks.pop(slot) for slot in slots if slot in self._tasks]
        for slot in list(self._finished):
            if slot not in self._tasks:
                del self._finished[slot]
        self._cancel_tasks(tasks, closing=closing)

    def run(self, work: Coroutine[Any, Any, T], *, closing: bool = False) -> T:
        """Run a coroutine to its end; raises SessionClosedError on a closed loop."""
        if self._loop.is_closed():
            work.close()
            raise SessionClosedError(_CLOSED)
        task = self._loop.create_task(work)
        task.add_done_callback(self._stop)
        try:
            while not task.done():
                self._drive(closing=closing)
        except BaseException:
            if closing or not self.ended:
                self._cancel_tasks([task], closing=closing)
            raise
        return task.result()

    def end(self) -> bool:
        """Make every wait raise, and return whether this thread may close what runs.

        It may not in a signal's handler that interrupted the drive, after `close`, or
        if another thread does not stop driving in time.
        """
        self.ended = True
        try:
            self._loop.call_soon_threadsafe(self._loop.stop)
        except RuntimeError:
            # The loop is closed.
            return False
        if self._drives_here():
            return False
        # The lock is only watched, not acquired: an interrupt between acquire and
        # release would leave it locked for ever.
        until = time.monotonic() + _END_SECONDS
        while self._driving.locked():
            if time.monotonic() > until:
                return False
            time.sleep(_CANCEL_PAUSE)
        return True

    def _drives_here(self) -> bool:
        return self._driving.locked() and self._driver == threading.get_ident()

    def close(self) -> None:
        """Give everything up at once, and log nothing. Closing twice is fine."""
        loop = self._loop
        if not loop.is_closed() and not loop.is_running():
            # Its pending tasks are destroyed on purpose.
            loop.set_exception_handler(_ignore)
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            loop.close()
            # At once: from Python 3.14 on it and what it awaits refer to each other.
            for task in pending:
                work = task.get_coro()
                if inspect.iscoroutine(work):
                    work.close()
        self._tasks.clear()
        self._finished.clear()

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the loop and its work are the parent's."""
        self._driving = threading.Lock()
        if self._loop.is_closed():
            return
        self._selector.disown()
        if self._loop.is_running():
            _inherited.append(self._loop)
        self.close()
        self._begin_anew()

    def _stop(self, _: object) -> None:
        self._loop.stop()

    def _cancel_tasks(
        self, tasks: Sequence[asyncio.Task[Any]], *, closing: bool
    ) -> None:
        """Cancel tasks; if they do not end, go on without them on a new loop."""
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        deadline = time.monotonic() + _CANCEL_SECONDS
        pause = 0.0
        while True:
            # One more turn for those that are done: until its callbacks have run, the
            # loop keeps the traceback of an interrupt, and so whoever waited, alive.
            done = all(task.done() for task in tasks)
            self._loop.call_later(pause, self._loop.stop)
            self._drive(closing=closing)
            if done:
                break
            if time.monotonic() > deadline:
                # An interrupt during a turn may have lost what the tasks wait for.
                self.close()
                self._begin_anew()
                return
            pause = _CANCEL_PAUSE
        for task in tasks:
            if not task.cancelled():
                task.exception()

    def _drive(self, *, closing: bool = False) -> None:
        """Turn the loop until something stops it."""
        if self._drives_here():
            raise InvalidRequestError(
                "the handler of a signal uses the vector env that it interrupted; only "
                "close() may be called there"
            )
        with self._driving:
            self._driver = threading.get_ident()
            if closing or not self.ended:
                if _is_inside_a_loop():
                    self._drive_in_thread()
                else:
                    self._loop.run_forever()
        if self.ended and not closing:
            raise SessionClosedError(_CLOSED)

    def _drive_in_thread(self) -> None:
        caught: list[BaseException] = []
        # Not `join`: interrupted, it takes the thread for ended (CPython 3.11). Nor an
        # event, which stays locked if a signal strikes in its Python code.
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def drive() -> None:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001  # raised in the caller
                caught.append(error)
            finally:
                ended.put(None)

        thread = threading.Thread(target=drive, name="ors_gym vector", daemon=True)
        try:
            thread.start()
            while not wait_for_item(ended, SIGNAL_SECONDS):
                pass
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            # Without an identity the thread may never have been started.
            until = time.monotonic() + _CANCEL_SECONDS
            while thread.is_alive() or (
                thread.ident is None and time.monotonic() < until
            ):
                if wait_for_item(ended, _CANCEL_PAUSE):
                    break
            raise
        thread.join()
        if caught:
            raise caught[0]


def _is_inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log nothing of tasks that are destroyed while they are pending."""


class _OwnSelector(selectors.DefaultSelector):
    """A selector that a forked child can drop without any effect on its parent.

    Both share the kernel's list of descriptors: unregistering one in the child would
    make the parent deaf to it.
    """

    def disown(self) -> None:
        """Close this process's handle of the list, and start with an empty one."""
        with contextlib.suppress(OSError):
            self.close()
        self.__init__()  # type: ignore[misc]
