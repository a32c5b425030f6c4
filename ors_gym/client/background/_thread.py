"""One lazy loop thread per process: heartbeats, deletes, sessions opened ahead.

It starts with the first session and stops some seconds after the last. It holds no
strong reference to a session, so one that nobody holds is deleted (docs/wire.md, points
12 and 14). After a fork the child starts from nothing: the parent's sessions are the
parent's.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import time
from typing import Any, Final, TypeVar

from ors_gym.client._connection import Link
from ors_gym.client.background._connections import Channels
from ors_gym.client.background._deletes import Deletions
from ors_gym.client.background._heartbeats import Heartbeats
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._wire import SessionState

__all__ = ["Background", "abandon_in_background", "background"]

T = TypeVar("T")

_TICK: Final = 0.5
_LINGER: Final = 5.0
_EXIT_TIMEOUT: Final = 5.0
_OPENING_TIMEOUT: Final = 1.0
"""Seconds that a process which ends waits for the sessions that it is opening."""


class Background:
    """The loop thread of one process. Use the module's `background()`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels = Channels()
        self._heartbeats = Heartbeats(self._channels)
        self._deletions = Deletions(self._channels)
        self._submitted = 0
        """Operations of others that have no result yet."""
        self._given: set[asyncio.Task[Any]] = set()
        """Their tasks."""
        self._owner = os.getpid()

    def watch(self, link: Link, state: SessionState) -> None:
        """Keep a session alive from now on.

        Args:
            link: How its server is reached.
            state: The session; referred to weakly.
        """
        self._heartbeats.watch(link, state)
        self._start()

    def forget(self, state: SessionState) -> None:
        """Stop keeping a session alive.

        Args:
            state: The session.
        """
        self._heartbeats.forget(state.session_id)

    def delete(self, link: Link, session_id: str, *, again: bool = False) -> None:
        """Delete a session soon.

        Args:
            link: How its server is reached.
            session_id: The session's id.
            again: Whether to delete it once more later (docs/wire.md, points 10, 11).
        """
        self.doom(link, session_id)
        if again:
            self._deletions.add_later(link, session_id)
        loop = self._start()
        loop.call_soon_threadsafe(self._deletions.reap)

    def doom(self, link: Link, session_id: str) -> None:
        """Note that a session is to be deleted: safe in a finaliser.

        No lock, no I/O, no thread; the running loop finds the note at its next tick.

        Args:
            link: How its server is reached.
            session_id: The session's id.
        """
        if os.getpid() == self._owner:
            self._heartbeats.forget(session_id)
            self._deletions.add(link, session_id)

    def submit(
        self, link: Link, operation: Operation[T]
    ) -> concurrent.futures.Future[T]:
        """Run an operation on the loop thread.

        Args:
            link: How its server is reached.
            operation: The operation.

        Returns:
            Its future result.
        """
        with self._lock:
            # Before the loop is looked at: it must not end in between.
            self._submitted += 1
        work = self._run_given(link, operation)
        future = asyncio.run_coroutine_threadsafe(work, self._start())
        future.add_done_callback(self._note_done)
        return future

    def _note_done(self, _: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._submitted -= 1

    def flush(self, timeout: float = _EXIT_TIMEOUT) -> None:
        """Delete every session of this process, in bounded time.

        Args:
            timeout: Seconds for all of them together.
        """
        loop = self._loop
        if os.getpid() != self._owner or loop is None:
            return
        work = self._delete_all(timeout)
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            # Its thread died; a thread that has only just begun turns the loop soon.
            work.close()
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            future.result(timeout + 1.0)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._work, args=(self._loop,), name="ors_gym", daemon=True
                )
                self._thread.start()
            return self._loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._live())
        finally:
            loop.close()
            with self._lock:
                if self._loop is loop:
                    self._loop = self._thread = None

    async def _live(self) -> None:
        idle_since = time.monotonic()
        while True:
            self._deletions.reap()
            self._heartbeats.ping_due()
            await self._channels.close_idle()
            if self._is_busy():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _LINGER and self._end():
                break
            await asyncio.sleep(_TICK)
        await self._channels.aclose()

    def _end(self) -> bool:
        """Let the thread go, unless something came in at the last moment."""
        with self._lock:
            if self._is_busy():
                return False
            self._loop = self._thread = None
            return True

    def _is_busy(self) -> bool:
        return self._submitted > 0 or bool(self._heartbeats or self._deletions)

    async def _delete_all(self, timeout: float) -> None:
        await self._end_given(min(_OPENING_TIMEOUT, timeout / 2))
        await self._deletions.delete_all(self._heartbeats.close_all(), timeout)

    async def _end_given(self, timeout: float) -> None:
        """Let openings under way come to their end, or have their sessions given up.

        What was opened is watched then, and what was given up is doomed.
        """
        if self._given:
            _, late = await asyncio.wait(set(self._given), timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run_given(self, link: Link, operation: Operation[T]) -> T:
        task: Any = asyncio.current_task()
        self._given.add(task)
        try:
            return await self._channels.run(link, operation)
        finally:
            self._given.discard(task)


_background = Background()
_inherited: list[Background] = []
"""What a forked child got from its parent: kept, so that nothing is finalised."""


def background() -> Background:
    """Return this process's background.

    Returns:
        The one instance; its thread starts when it is needed.
    """
    return _background


def abandon_in_background(link: Link) -> None:
    """Have the sessions that operations give up deleted by the background.

    Args:
        link: How their server is reached.
    """

    def abandon(session_id: str) -> None:
        background().delete(link, session_id, again=True)

    link.wire.abandon = abandon


def _start_anew_after_fork() -> None:
    global _background  # noqa: PLW0603
    _inherited.append(_background)
    _background = Background()


def _flush_at_exit() -> None:
    _background.flush()


os.register_at_fork(after_in_child=_start_anew_after_fork)
atexit.register(_flush_at_exit)
