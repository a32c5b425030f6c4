"""The background thread of a process: heartbeats, deletes, sessions opened ahead.

It starts with the first session and exits some seconds after the last. When the process
exits, it deletes every open session first. It holds no strong reference to a session,
so it can delete one that nobody holds (docs/wire.md, points 12 and 14).

A second thread runs what blocking functions wait for: see `run_and_wait`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

from ors_gym._system import register_for_fork
from ors_gym.client._remote_server import RemoteServer
from ors_gym.client.background._deletes import LONGEST_EXIT, Deletes
from ors_gym.client.background._own_connections import (
    BackgroundConnections,
    ServerConnections,
)
from ors_gym.client.background._pending import Pending
from ors_gym.client.background._sessions import Registered, Sessions
from ors_gym.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    SessionClosedError,
)
from ors_gym.protocol._exchange import Operation, check_seconds
from ors_gym.protocol._server_state import SessionState

T = TypeVar("T")

_TICK_SECONDS: Final = 0.5
_LINGER_SECONDS: Final = 5.0
"""How long the thread stays without work: a new thread for each session costs more."""
_STOP_SECONDS: Final = 2.0
_CANCEL_SECONDS: Final = 1.0
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
        self._connections = BackgroundConnections()
        self._sessions = Sessions(self._connections)
        self._deletes = Deletes(self._connections)
        self._submitted: dict[Pending[Any], RemoteServer] = {}
        """The submitted operations that have not ended, and where each runs."""
        self._ending = False

    def reset_after_fork(self) -> None:
        # Kept, since a finaliser would close what the parent still uses.
        self._inherited.append(
            (self._connections, self._sessions, self._deletes, self._submitted)
        )
        self._reset()

    def register(self, server: RemoteServer, state: SessionState) -> None:
        """Answer for a session, whose /create is about to be sent.

        From now on it is deleted when its state is closed or collected, when it is
        discarded, and when the process ends.

        Raises:
            SessionClosedError: If the process is ending.
        """
        self._sessions.register(server, state)
        if not self._ending:
            try:
                self._thread.start()
            except BaseException:
                self._sessions.forget(state.session_id)
                raise
        if self._ending:
            # Looked at again after the start: the process may end since then.
            self._sessions.forget(state.session_id)
            raise SessionClosedError(
                "this process is ending, so it opens no more sessions"
            )

    def find(self, session_id: str) -> Registered | None:
        """Return a session that this process answers for."""
        return self._sessions.find(session_id)

    def note_open(self, session_id: str) -> None:
        """Keep a session alive from now on."""
        self._sessions.note_open(session_id)

    def forget(self, session_id: str) -> None:
        """Answer no longer for a session: it is deleted, or it is not ours."""
        self._sessions.forget(session_id)

    def discard(self, server: RemoteServer, session_id: str) -> None:
        """Delete a session without waiting."""
        found = self.find(session_id)
        if found is not None:
            found.is_given_up = True
            self.wake()
        else:
            self._deletes.add(server, session_id, again=True)
            # Where no thread can start, the next one that does sends the delete.
            with contextlib.suppress(ConnectionFailedError):
                self._thread.start()
            self.wake()

    def wake(self) -> None:
        """Have the thread look at once for what is to be deleted."""
        loop = self._thread.loop
        if loop is not None:
            # Closed in this moment, the thread has ended, with nothing to do.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._look)

    def submit(self, server: RemoteServer, operation: Operation[T]) -> Pending[T]:
        """Run an operation on the thread."""
        pending: Pending[T] = Pending()
        try:
            # Counted first, so that the thread does not exit before it has the work.
            self._submitted[pending] = server
            pending.add_done_callback(self._forget_submitted)
            loop = self._thread.start()
            pending.start(loop, self._connections.run(server, operation))
        except BaseException:
            pending.cancel()
            self._forget_submitted(pending)  # where nobody was told to do so
            raise
        return pending

    def _forget_submitted(self, pending: Pending[Any]) -> None:
        self._submitted.pop(pending, None)

    def finish(self, server: RemoteServer) -> Pending[None] | None:
        """Send the deletes that are due at a server, and let what else runs there end.

        None is returned where the thread does not run, so that there is nothing to do.
        """
        loop = self._thread.loop
        if loop is None:
            return None
        pending: Pending[None] = Pending()
        try:
            pending.start(loop, self._finish(server))
        except RuntimeError:
            return None  # the loop was closed in this moment
        return pending

    async def _finish(self, server: RemoteServer) -> None:
        for pending, where in list(self._submitted.items()):
            if where is server:
                await pending.settled()
        # A session that was opened ahead and discarded is deleted with these.
        self._take_over()
        self._deletes.start_due()
        await self._deletes.wait_for(server)
        await self._sessions.wait_for(server)

    def delete_all(
        self, timeout: float = _EXIT_SECONDS, *, at_exit: bool = False
    ) -> None:
        """Delete every session of this process, within ``timeout`` seconds.

        No session can be opened meanwhile. With ``at_exit`` none can be opened
        afterwards either, and each confirmed delete extends the time, up to 60 s.
        """
        before, self._ending = self._ending, True
        # Without a loop no session was opened, and none can be from now on.
        loop = self._thread.loop
        try:
            if loop is None:
                return
            pending: Pending[None] = Pending()
            try:
                pending.start(loop, self._delete_all(timeout, patient=at_exit))
            except RuntimeError:
                # The loop is closed, so the thread has ended.
                return
            with contextlib.suppress(TimeoutError):
                pending.result((LONGEST_EXIT if at_exit else timeout) + 1.0)
        finally:
            self._ending = before or at_exit

    async def _delete_all(self, timeout: float, *, patient: bool) -> None:
        cancel_at = time.monotonic() + min(_OPENING_EXIT_SECONDS, timeout / 2)

        def collect() -> bool:
            self._sessions.close_all()
            self._take_over()
            if time.monotonic() > cancel_at:
                for pending in list(self._submitted):
                    pending.cancel()
            return bool(self._submitted)

        await self._deletes.finish(collect, timeout, patient=patient)

    async def _work(self) -> None:
        """Do what is due at each tick, until nothing was to be done for a while."""
        left: list[ServerConnections] = []

        def give_up() -> bool:
            if not self._is_idle():
                return False
            # Taken before another thread can start, which then opens its own.
            left.extend(self._connections.take())
            return True

        idle_since = time.monotonic()
        while True:
            self._look()
            await self._connections.close_idle()
            if not self._is_idle():
                idle_since = time.monotonic()
            elif (
                time.monotonic() - idle_since > _LINGER_SECONDS
                and self._thread.exit_if(give_up)
            ):
                break
            await asyncio.sleep(_TICK_SECONDS)
        for connections in left:
            await connections.aclose()

    def _look(self) -> None:
        """Start the deletes and pings that are due."""
        self._take_over()
        self._deletes.start_due()
        self._sessions.ping_due()

    def _take_over(self) -> None:
        """Have the sessions deleted that are over."""
        for each in self._sessions.take_over():
            # Twice before the end of its set-up: the first delete may arrive while the
            # server still constructs the environment, and be lost (docs/wire.md,
            # points 10 and 11).
            self._deletes.add(
                each.server,
                each.session_id,
                again=not each.is_set_up,
                is_opening=each.is_opening,
            )

    def _is_idle(self) -> bool:
        return not (self._submitted or self._sessions or self._deletes)


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
    pending: Pending[T] = Pending()
    try:
        pending.start(loop, work)
        return pending.result()
    except BaseException:
        if pending.completion is None:
            pending.cancel()
            if not pending.wait(_CLEANUP_SECONDS):
                # Something blocks the loop: the next call needs another.
                _thread_for_blocking_calls.abandon()
                raise
        work.close()  # where it never began
        raise


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
        # Reentrant: the handler of a signal may start it in the middle of a start.
        self._lock = threading.RLock()
        self._claim = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The running loop, or None."""
        self._thread: threading.Thread | None = None

    def reset_after_fork(self) -> None:
        # Kept, since a finaliser would close what the parent still uses.
        self._inherited.append((self.loop, self._thread))
        self._reset()

    def start(self) -> asyncio.AbstractEventLoop:
        """Return the running loop."""
        with self._lock:
            while (loop := self.loop) is None:
                started: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
                arguments = (started,)
                # The thread itself puts its loop there. Interrupted here, nobody knows
                # whether it runs: the next call starts another, and the later one ends.
                threading.Thread(
                    target=self._run, args=arguments, name=self._name, daemon=True
                ).start()
                if (error := started.get()) is not None:
                    raise ConnectionFailedError(
                        f"the thread {self._name} cannot start: {error.strerror}; "
                        "raise the limit on open files (`ulimit -n`), or keep fewer "
                        "sessions"
                    )
            return loop

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def exit_if(self, give_up: Callable[[], bool]) -> bool:
        """Let ``work`` return if ``give_up`` says so, and the next `start` begin anew.

        No thread can be started while it is asked.
        """
        with self._lock:
            if not give_up():
                return False
            self.loop = self._thread = None
            return True

    def abandon(self) -> None:
        """Let the next `start` start another thread, since this one is blocked."""
        with self._lock:
            self.loop = self._thread = None

    def stop(self, timeout: float) -> None:
        """Stop the loop, and wait some seconds for the thread to exit."""
        loop, thread = self.loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout)

    def _run(self, started: queue.SimpleQueue[OSError | None]) -> None:
        with self._claim:
            if self.loop is not None:
                started.put(None)
                return
            try:
                loop = asyncio.new_event_loop()
            except OSError as error:
                # A loop needs three descriptors of its own.
                started.put(error)
                return
            asyncio.set_event_loop(loop)
            self._thread = threading.current_thread()
            self.loop = loop
        started.put(None)
        try:
            if self._work is None:
                _run_until_stopped(loop)
            else:
                loop.run_until_complete(self._work())
        finally:
            loop.run_until_complete(_cancel_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            with self._lock:
                if self.loop is loop:
                    self.loop = self._thread = None


async def _cancel_tasks() -> None:
    """Cancel what a library left on the loop, as `asyncio.run` does."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop also when a task that somebody left there raises SystemExit."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # asyncio logs it with the task.
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
        _background.delete_all(at_exit=True)


def delete_sessions_on_sigterm(timeout: float = 5.0) -> None:
    """Have SIGTERM delete this process's sessions before it takes its effect.

    Call it in the main thread. The handler that was there before runs afterwards;
    where there was none, the process ends as it would have without.

    Args:
        timeout: Seconds that the deletes may take together.

    Raises:
        InvalidRequestError: If the timeout is no number of seconds.
        ValueError: If this is not the main thread.

    Example:
        >>> import signal
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> delete_sessions_on_sigterm()
        >>> _ = signal.signal(signal.SIGTERM, before)
    """
    check_seconds("timeout", timeout)
    before = signal.getsignal(signal.SIGTERM)

    def delete_sessions(number: int, frame: FrameType | None) -> None:
        background().delete_all(timeout)
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, delete_sessions)
