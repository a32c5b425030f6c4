"""One event loop of our own in a thread, for blocking functions with an async core.

It works inside a running event loop (a notebook) too. It stays for the life of the
process, so that what a policy opened on it, such as a model's client, can be used again
by the next call. Ctrl-C in the calling thread cancels the work and waits until that has
cleaned up.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from ors_gym.errors import InvalidRequestError

__all__ = ["run_on_own_loop"]

T = TypeVar("T")

_CLEANUP_SECONDS: Final = 30.0
_EXIT_SECONDS: Final = 2.0


class _OwnLoop:
    """The loop and its thread, started when first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        """Return the running loop."""
        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self.thread = threading.Thread(
                    target=self._work,
                    args=(self.loop,),
                    daemon=True,
                    name="ors_gym-run",
                )
                self.thread.start()
            return self.loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def stop(self) -> None:
        """Stop the loop, at the end of the process."""
        if self.loop is not None and self.thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(_EXIT_SECONDS)


_own = _OwnLoop()
_inherited: list[_OwnLoop] = []
"""What a forked child got from its parent: kept, so that nothing is finalised."""


def run_on_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and wait for it.

    Args:
        work: The coroutine.

    Returns:
        What it returns.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the coroutine was cancelled and ended.
        InvalidRequestError: If called by work that runs on this very loop.
    """
    loop = _own.start()
    if threading.current_thread() is _own.thread:
        work.close()
        raise InvalidRequestError(
            "this blocks the event loop that it runs on; await the async function "
            "(parallel_evaluate, run_episode_async, ...) in its place"
        )
    tasks: list[asyncio.Task[T]] = []
    done = threading.Event()

    def start() -> None:
        task = loop.create_task(work)
        task.add_done_callback(lambda _: done.set())
        tasks.append(task)

    loop.call_soon_threadsafe(start)
    try:
        done.wait()
    except BaseException:
        loop.call_soon_threadsafe(_canceller(tasks))
        done.wait(_CLEANUP_SECONDS)
        raise
    return tasks[0].result()


def _canceller(tasks: Sequence[asyncio.Task[Any]]) -> Callable[[], None]:
    """Return what cancels a task that may not have been made yet."""

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    return cancel


def _start_anew_after_fork() -> None:
    global _own  # noqa: PLW0603
    _inherited.append(_own)
    _own = _OwnLoop()


os.register_at_fork(after_in_child=_start_anew_after_fork)


@atexit.register
def _stop_at_exit() -> None:
    _own.stop()
