"""Blocking functions over an async core run a coroutine on a thread and wait."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ors_gym.client.background._thread import LoopThread
from ors_gym.errors import InvalidRequestError

__all__ = ["run_and_wait"]

T = TypeVar("T")

_CLEANUP_SECONDS: Final = 30.0
_EXIT_SECONDS: Final = 2.0

# It stays for the life of the process, so that the next call can use what a policy
# opened on it, such as a model's client. Not the background's: a policy may block.
_thread: Final = LoopThread("ors_gym-run")


def run_and_wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also inside a running event loop (a notebook).

    Ctrl-C cancels the coroutine, and is raised once the coroutine has ended.
    """
    loop = _thread.start()
    if _thread.is_current():
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

    def cancel() -> None:
        for task in tasks:
            task.cancel()
        if not tasks:
            # Interrupted before it was started.
            work.close()
            done.set()

    try:
        loop.call_soon_threadsafe(start)
        # Not the result of a future: cancelled, it would not wait for the clean-up.
        done.wait()
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        done.wait(_CLEANUP_SECONDS)
        raise
    return tasks[0].result()


# Registered after the background's own exit, so it runs before: nothing steps a session
# any more when the background deletes it.
atexit.register(_thread.stop, _EXIT_SECONDS)
