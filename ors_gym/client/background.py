"""One lazy loop thread per process: heartbeats, deletes, sessions opened ahead.

It starts with the first session and stops some seconds after the last. It holds no
strong reference to a session, so one that nobody holds is deleted (WIRE.md, points
12 and 14). After a fork the child starts from nothing: the parent's sessions are the
parent's.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import dataclasses
import heapq
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ors_gym.client.async_transport import AsyncTransport
from ors_gym.client.drivers import AsyncExchange, run_async
from ors_gym.client.link import Link
from ors_gym.errors import ORSError
from ors_gym.protocol import operations
from ors_gym.protocol.exchange import Operation
from ors_gym.protocol.wire import SessionState

__all__ = ["Background", "abandon_in_background", "background"]

T = TypeVar("T")

_PING_TIMEOUT: Final = 10.0
_DELETE_TIMEOUT: Final = 10.0
_DELETE_AGAIN_AFTER: Final = 60.0
"""Seconds until an abandoned session is deleted once more: by then a constructor
that swallowed the first delete is usually over."""
_TICK: Final = 0.5
_LINGER: Final = 5.0
_CHANNEL_IDLE: Final = 90.0
"""Seconds after which unused connections to a server are closed."""
_EXIT_TIMEOUT: Final = 5.0
_OPENING_TIMEOUT: Final = 1.0
"""Seconds that a process which ends waits for the sessions that it is opening."""
_AT_ONCE: Final = 64


@dataclasses.dataclass(slots=True)
class _Watched:
    """A session that is kept alive."""

    link: Link
    state: weakref.ref[SessionState]
    due: float
    waiting: bool = False
    """Whether it is in the queue of those to be pinged."""


@dataclasses.dataclass(slots=True, order=True)
class _Doomed:
    """A session to be deleted."""

    due: float
    session_id: str = dataclasses.field(compare=False)
    link: Link = dataclasses.field(compare=False)


class _Channel:
    """The background's own connections to one server."""

    __slots__ = ("exchange", "idle_since", "transport", "users")

    def __init__(self, link: Link) -> None:
        self.transport: AsyncTransport | None = None
        if link.background_exchange is not None:
            self.exchange: AsyncExchange = link.background_exchange
        else:
            self.transport = AsyncTransport(
                link.base_url, headers=link.headers, limits=link.limits
            )
            self.exchange = self.transport.exchange
        self.users = 0
        self.idle_since = time.monotonic()


class Background:
    """The loop thread of one process. Use the module's `background()`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[str, _Watched] = {}
        self._doomed: deque[_Doomed] = deque()
        """Those to be deleted now, and those that no look was taken at yet. Finalisers
        add to it, so it is a queue that needs no lock."""
        self._later: list[_Doomed] = []
        """Those to be deleted later: a heap, and the loop's own."""
        self._channels: dict[int, tuple[Link, _Channel]] = {}
        self._jobs: set[asyncio.Task[Any]] = set()
        """The deletes that are under way."""
        self._pings: set[asyncio.Task[Any]] = set()
        self._waiting: deque[_Watched] = deque()
        """Sessions to be pinged, in the order in which they became due."""
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
        due = time.monotonic() + link.ping_every * (0.5 + link.wire.random() / 2)
        self._watched[state.session_id] = _Watched(link, weakref.ref(state), due)
        self._start()

    def forget(self, state: SessionState) -> None:
        """Stop keeping a session alive.

        Args:
            state: The session.
        """
        self._watched.pop(state.session_id, None)

    def delete(self, link: Link, session_id: str, *, again: bool = False) -> None:
        """Delete a session soon.

        Args:
            link: How its server is reached.
            session_id: The session's id.
            again: Whether to delete it once more later (WIRE.md, points 10 and 11).
        """
        self.doom(link, session_id)
        if again:
            later = time.monotonic() + _DELETE_AGAIN_AFTER
            self._doomed.append(_Doomed(later, session_id, link))
        loop = self._start()
        loop.call_soon_threadsafe(self._reap)

    def doom(self, link: Link, session_id: str) -> None:
        """Note that a session is to be deleted: safe in a finaliser.

        No lock, no I/O, no thread; the running loop finds the note at its next tick.

        Args:
            link: How its server is reached.
            session_id: The session's id.
        """
        if os.getpid() == self._owner:
            self._watched.pop(session_id, None)
            self._doomed.append(_Doomed(0.0, session_id, link))

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
            self._reap()
            self._ping_due()
            await self._close_idle_channels()
            if self._is_busy():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _LINGER and self._end():
                break
            await asyncio.sleep(_TICK)
        for _, channel in self._channels.values():
            if channel.transport is not None:
                await channel.transport.aclose()
        self._channels.clear()

    def _end(self) -> bool:
        """Let the thread go, unless something came in at the last moment."""
        with self._lock:
            if self._is_busy():
                return False
            self._loop = self._thread = None
            return True

    def _is_busy(self) -> bool:
        queues = (self._watched, self._doomed, self._later, self._jobs, self._pings)
        return self._submitted > 0 or any(queues)

    def _reap(self) -> None:
        """Start as many of the deletes that are due as may run at once."""
        now = time.monotonic()
        while len(self._jobs) < _AT_ONCE:
            if self._later and self._later[0].due <= now:
                doomed = heapq.heappop(self._later)
            elif self._doomed:
                doomed = self._doomed.popleft()
            else:
                return
            if doomed.due > now:
                heapq.heappush(self._later, doomed)
            else:
                self._begin(self._delete(doomed), self._jobs, self._reap)

    def _ping_due(self) -> None:
        now = time.monotonic()
        for session_id, watched in list(self._watched.items()):
            state = watched.state()
            if state is None or state.closed or state.lost:
                self._watched.pop(session_id, None)
            elif watched.due <= now and not watched.waiting:
                watched.waiting = True
                self._waiting.append(watched)
        self._ping_waiting()

    def _ping_waiting(self) -> None:
        """Start as many pings as may run at once; deletes do not hold them up."""
        while self._waiting and len(self._pings) < _AT_ONCE:
            watched = self._waiting.popleft()
            watched.waiting = False
            state = watched.state()
            if state is not None and not (state.closed or state.lost):
                watched.due = time.monotonic() + watched.link.ping_every
                work = self._ping(watched.link, state.session_id)
                self._begin(work, self._pings, self._ping_waiting)

    def _begin(
        self,
        work: Coroutine[Any, Any, None],
        running: set[asyncio.Task[Any]],
        then: Callable[[], None],
    ) -> None:
        task = asyncio.get_running_loop().create_task(work)
        running.add(task)

        def finish(_: asyncio.Task[Any]) -> None:
            running.discard(task)
            then()

        task.add_done_callback(finish)

    async def _ping(self, link: Link, session_id: str) -> None:
        operation = operations.ping(link.wire, session_id, timeout=_PING_TIMEOUT)
        alive = await self._run(link, operation)
        watched = self._watched.get(session_id)
        state = watched.state() if watched is not None else None
        if alive is False and state is not None and not state.closed:
            state.lost = "the server no longer knows it"
            self._watched.pop(session_id, None)

    async def _delete(
        self,
        doomed: _Doomed,
        timeout: float = _DELETE_TIMEOUT,
        attempts: int | None = None,
    ) -> None:
        operation = operations.delete_session(
            doomed.link.wire, doomed.session_id, timeout=timeout, attempts=attempts
        )
        with contextlib.suppress(ORSError):
            # The user's own httpx client may be closed: the server's reaper is left.
            await self._run(doomed.link, operation)

    async def _delete_all(self, timeout: float) -> None:
        """Delete what is open and what is doomed, whether it is due or not."""
        await self._end_given(min(_OPENING_TIMEOUT, timeout / 2))
        doomed = [*self._doomed, *self._later]
        self._doomed.clear()
        self._later.clear()
        for session_id, watched in list(self._watched.items()):
            state = watched.state()
            if state is not None and not state.closed:
                state.closed = True
                doomed.append(_Doomed(0.0, session_id, watched.link))
        self._watched.clear()
        loop = asyncio.get_running_loop()
        # Two attempts: a process that ends does not wait for a server that is gone.
        tasks = {loop.create_task(self._delete(item, timeout, 2)) for item in doomed}
        tasks |= self._jobs
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

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
            return await self._run(link, operation)
        finally:
            self._given.discard(task)

    async def _run(self, link: Link, operation: Operation[T]) -> T:
        _, channel = self._channels.setdefault(id(link), (link, _Channel(link)))
        channel.users += 1
        try:
            return await run_async(operation, channel.exchange)
        finally:
            channel.users -= 1
            channel.idle_since = time.monotonic()

    async def _close_idle_channels(self) -> None:
        stale = time.monotonic() - _CHANNEL_IDLE
        for key, (_, channel) in list(self._channels.items()):
            if channel.users == 0 and channel.idle_since < stale:
                del self._channels[key]
                if channel.transport is not None:
                    await channel.transport.aclose()


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
