"""The session of the next task, opened while this one is played."""

from __future__ import annotations

import concurrent.futures
import os
from typing import Any, Generic, NamedTuple, TypeVar

from ors_gym.client.background import background
from ors_gym.client.link import Link
from ors_gym.client.session_core import SessionCore
from ors_gym.errors import ORSError
from ors_gym.protocol.exchange import Operation
from ors_gym.task_planner import Opened
from ors_gym.tasks import Task

__all__ = ["Prefetch", "Prefetched"]

S = TypeVar("S", bound=SessionCore)


class Prefetched(NamedTuple, Generic[S]):
    """A task and the session that is being opened for it."""

    task: Task
    future: concurrent.futures.Future[Opened[S]]


class Prefetch(Generic[S]):
    """Opens one session ahead, on the background's loop.

    Args:
        link: How the server is reached.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._next: Prefetched[S] | None = None
        self._owner = os.getpid()

    @property
    def pending(self) -> bool:
        """Whether a session was opened ahead and not taken yet."""
        return self._next is not None

    def open(self, task: Task, operation: Operation[Opened[S]]) -> None:
        """Start to open a session.

        Args:
            task: The task that comes next.
            operation: Opens its session.
        """
        self.drop()
        future = background().submit(self._link, operation)
        self._next = Prefetched(task, future)
        self._owner = os.getpid()

    def take(self) -> Prefetched[S] | None:
        """Return what was opened ahead, if anything; it is the caller's now.

        What the parent of a forked process opened is the parent's. The future of a
        session that the server lost in the meantime raises.
        """
        taken, self._next = self._next, None
        if taken is None or self._owner != os.getpid():
            return None
        return _without_lost(taken)

    def drop(self) -> bool:
        """Have what was opened ahead deleted.

        Returns:
            Whether there was anything.
        """
        dropped = self.take()
        if dropped is not None:
            dropped.future.add_done_callback(_discard)
        return dropped is not None


def _without_lost(taken: Prefetched[S]) -> Prefetched[S]:
    future = taken.future
    if not future.done() or future.cancelled() or future.exception() is not None:
        return taken
    session = future.result().session
    try:
        session.state.check_open()
    except ORSError as error:
        session.discard()
        future = concurrent.futures.Future()
        future.set_exception(error)
    return taken._replace(future=future)


def _discard(future: concurrent.futures.Future[Opened[Any]]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().session.discard()
