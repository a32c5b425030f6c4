"""The background thread of a process: heartbeats, deletes, sessions opened ahead.

It starts with the first session and exits some seconds after the last. When the process
exits, it deletes every open session first. It holds no strong reference to a session,
so it can delete one that nobody holds (docs/wire.md, points 12 and 14).

A second thread runs what blocking functions wait for: see `run_and_wait`.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._deletes import Deletes
from ors_gym.client.background._heartbeats import Heartbeats
from ors_gym.client.background._own_connections import BackgroundConnections
from ors_gym.client.http._pool import register_for_fork
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Operation
from ors_gym.protocol._server_state import SessionState

T = TypeVar("T")

_TICK_SECONDS: Final = 0.5
_LINGER_SECONDS: Final = 5.0
"""How long the thread stays without work: a new thread for each session costs more."""
_STOP_SECONDS: Final = 2.0
_CLEANUP_SECONDS: Final = 30.0
_EXIT_SECONDS: Final = 5.0
_OPENING_EXIT_SECONDS: Final = 1.0
"""How long a process that exits waits for the sessions that it is opening."""


class Background:
    """What the background thread of this process does; `background` returns it."""

    def __init__(self) -> None:
        self._thread = LoopThread("ors_gym", self._work)
        self._inherited: list[object] = []
        self._reset()
        register_for_fork(self)

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._connections = BackgroundConnections()
        self._heartbeats = Heartbeats(self._connections)
        self._deletes = Deletes(self._connections)
        self._submitted = 0
        """Submitted operations that have no result yet."""
        self._submitted_tasks: set[asyncio.Task[Any]] = set()

    def reset_after_fork(self) -> None:
        # Kept, since a finaliser would delete the parent's sessions.
        self._inherited.append(
            (self._connections, self._heartbeats, self._deletes, self._submitted_tasks)
        )
        self._reset()

    def watch(self, server: RemoteServer, state: SessionState) -> None:
        """Keep a session alive from now on; it is referred to weakly."""
        self._heartbeats.watch(server, state)
        self._thread.start()

    def unwatch(self, state: SessionState) -> None:
        self._heartbeats.unwatch(state.session_id)

    def delete_soon(
        self, server: RemoteServer, session_id: str, *, again: bool = False
    ) -> None:
        """Delete a session without waiting.

        With ``again`` it is deleted once more in a minute: the first delete may arrive
        while the server still constructs the environment, and be lost (docs/wire.md,
        points 10 and 11).
        """
        self.note_for_deletion(server, session_id)
        if again:
            self._deletes.add_later(server, session_id)
        loop = self._thread.start()
        loop.call_soon_threadsafe(self._deletes.start_due)

    def note_for_deletion(self, server: RemoteServer, session_id: str) -> None:
        """Have a running thread delete a session at its next tick.

        A finaliser may call it: it takes no lock, does no I/O and starts no thread.
        """
        if os.getpid() == self._owner:
            self._heartbeats.unwatch(session_id)
            self._deletes.add(server, session_id)

    def submit(
        self, server: RemoteServer, operation: Operation[T]
    ) -> concurrent.futures.Future[T]:
        """Run an operation on the thread."""
        with self._thread.lock:
            # Counted before the loop is looked at: it must not exit in between.
            self._submitted += 1
        work = self._run_submitted(server, operation)
        future = asyncio.run_coroutine_threadsafe(work, self._thread.start())
        future.add_done_callback(self._count_done)
        return future

    def _count_done(self, _: concurrent.futures.Future[Any]) -> None:
        with self._thread.lock:
            self._submitted -= 1

    async def _run_submitted(self, server: RemoteServer, operation: Operation[T]) -> T:
        task: Any = asyncio.current_task()
        self._submitted_tasks.add(task)
        try:
            return await self._connections.run(server, operation)
        finally:
            self._submitted_tasks.discard(task)

    def delete_all(self, timeout: float = _EXIT_SECONDS) -> None:
        """Delete every session of this process, within ``timeout`` seconds."""
        loop = self._thread.loop
        if os.getpid() != self._owner or loop is None:
            return
        work = self._delete_all(timeout)
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            # The loop is closed, so the thread has ended.
            work.close()
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            future.result(timeout + 1.0)

    async def _delete_all(self, timeout: float) -> None:
        if self._submitted_tasks:
            # A session that is opened in time is watched, so it is deleted below. An
            # opening that is cancelled notes its own session for deletion.
            _, late = await asyncio.wait(
                set(self._submitted_tasks),
                timeout=min(_OPENING_EXIT_SECONDS, timeout / 2),
            )
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._deletes.delete_all(self._heartbeats.close_all(), timeout)

    async def _work(self) -> None:
        """Do what is due at each tick, until nothing was to be done for a while."""
        idle_since = time.monotonic()
        while True:
            self._deletes.start_due()
            self._heartbeats.start_due()
            await self._connections.close_idle()
            if not self._is_idle():
                idle_since = time.monotonic()
            elif (
                time.monotonic() - idle_since > _LINGER_SECONDS
                and self._thread.exit_if(self._is_idle)
            ):
                break
            await asyncio.sleep(_TICK_SECONDS)
        await self._connections.aclose()

    def _is_idle(self) -> bool:
        return not (self._submitted or self._heartbeats or self._deletes)


def background() -> Background:
    return _background


def run_and_wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also inside a running event loop (a notebook).

    Ctrl-C cancels the coroutine, and is raised once the coroutine has ended.
    """
    loop = _thread_for_blocking_calls.start()
    if _thread_for_blocking_calls.is_current():
        work.close()
        raise InvalidRequestError(
            "this blocks the event loop that it runs on; await the async function "
            "(parallel_evaluate, run_episode_async, ...) in its place"
        )
    tasks: list[asyncio.Task[Outcome[T]]] = []
    done = threading.Event()

    def start() -> None:
        task = loop.create_task(outcome_of(work))
        task.add_done_callback(end)
        tasks.append(task)

    def end(_: object) -> None:
        work.close()  # where it was cancelled before it began
        done.set()

    def cancel() -> None:
        for task in tasks:
            task.cancel()
        if not tasks:
            end(None)

    try:
        loop.call_soon_threadsafe(start)
        # Not for a future: a cancelled one is done before the coroutine has cleaned up.
        done.wait()
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        if not done.wait(_CLEANUP_SECONDS):
            # Something blocks the loop: the next call needs another.
            _thread_for_blocking_calls.abandon()
        raise
    return tasks[0].result().get()


class Outcome(NamedTuple, Generic[T]):
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


async def outcome_of(work: Awaitable[T]) -> Outcome[T]:
    try:
        return Outcome(await work)
    except BaseException as error:  # noqa: BLE001 - whoever asks for it gets it
        return Outcome(None, error)


class LoopThread:
    """A daemon thread with an event loop, started when first needed.

    It runs ``work``, or whatever is put on its loop until `stop`. A forked child has no
    thread, so it starts one of its own.
    """

    def __init__(
        self, name: str, work: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self._name = name
        self._work = work
        self._inherited: list[object] = []
        self._reset()
        register_for_fork(self)

    def _reset(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The running loop, or None."""
        self._thread: threading.Thread | None = None

    def reset_after_fork(self) -> None:
        # Kept, since a finaliser would close what the parent still uses.
        self._inherited.append((self.loop, self._thread))
        self._reset()

    def start(self) -> asyncio.AbstractEventLoop:
        """Return the running loop."""
        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self.loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self.loop

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def exit_if(self, is_idle: Callable[[], bool]) -> bool:
        """Let ``work`` return, unless more came in at the last moment."""
        with self.lock:
            if not is_idle():
                return False
            self.loop = self._thread = None
            return True

    def abandon(self) -> None:
        """Let the next `start` start another thread, since this one is blocked."""
        with self.lock:
            self.loop = self._thread = None

    def stop(self, timeout: float) -> None:
        """Stop the loop, and wait some seconds for the thread to exit."""
        loop, thread = self.loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            if self._work is None:
                _run_until_stopped(loop)
            else:
                loop.run_until_complete(self._work())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            with self.lock:
                if self.loop is loop:
                    self.loop = self._thread = None


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop also when a task that somebody left there raises SystemExit."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # The task holds it, and asyncio logs it with the task.
            continue
        return


_background: Final = Background()
# It stays for the life of the process, so that the next call can use what a policy
# opened on it, such as a model's client. It is a thread of its own, because a policy
# may block its loop, and heartbeats must go on.
_thread_for_blocking_calls: Final = LoopThread("ors_gym-run")


@atexit.register
def _exit_with_the_process() -> None:
    try:
        # First, since nothing may step a session any more when it is deleted.
        _thread_for_blocking_calls.stop(_STOP_SECONDS)
    finally:
        _background.delete_all()


def delete_sessions_on_sigterm(timeout: float = 5.0) -> None:
    """Have SIGTERM delete this process's sessions before it takes its effect.

    Call it in the main thread. The handler that was there before runs afterwards;
    where there was none, the process ends as it would have without.

    Args:
        timeout: Seconds that the deletes may take together.

    Raises:
        ValueError: If this is not the main thread.

    Example:
        >>> import signal
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> delete_sessions_on_sigterm()
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    before = signal.getsignal(signal.SIGTERM)

    def delete_sessions(number: int, frame: FrameType | None) -> None:
        background().delete_all(timeout)
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, delete_sessions)
