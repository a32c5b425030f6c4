"""Chooses the task of an episode and opens its session, also ahead of time."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from ors_gym.client._connection import Link
from ors_gym.client._session import SessionCore
from ors_gym.client.background._thread import background
from ors_gym.env._settings import EnvConfig
from ors_gym.env._task_order import Task, TaskSchedule, choose_split
from ors_gym.errors import InvalidRequestError, ORSError, SessionLostError
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._exchange import Operation
from ors_gym.types import Block, Split, ToolSpec

__all__ = ["Opened", "Prefetch", "Prefetched", "TaskPlanner"]

S = TypeVar("S", bound=SessionCore)

_OPENINGS: Final = 3
"""How often a session is opened when the server loses it before its first call."""
_RESET_OPTIONS: Final = ("task_index", "task", "split")


class Opened(NamedTuple, Generic[S]):
    """An episode whose session is open and set up."""

    task: Task
    session: S
    prompt: list[Block]
    tools: list[ToolSpec]


class TaskPlanner(Generic[S]):
    """Knows the splits and their sizes, and the order in which tasks are played.

    Args:
        config: The env's arguments.
        link: How the server is reached.
        make_session: Makes a session that is not open yet for the fields of /create
            that name a task.
    """

    def __init__(
        self,
        config: EnvConfig,
        link: Link,
        make_session: Callable[[str, Mapping[str, Any]], S],
    ) -> None:
        self.config = config
        self.environment = config.env_name
        self.schedule = TaskSchedule(
            config.tasks, config.task_order, config.task_offset, config.task_stride
        )
        self._link = link
        self._make_session = make_session

    def list_splits(self) -> Operation[list[Split]]:
        """Return the operation that lists the splits, which asks only once."""
        wire = self._link.wire
        listing = wire.listing(self.environment)
        if listing.splits is None:
            listing.splits = yield from operations.list_splits(wire, self.environment)
        return listing.splits

    def count_tasks(self, split: str | None = None) -> Operation[int]:
        """Return the operation that counts the tasks that are played.

        Args:
            split: The split; the env's own if None.
        """
        if split is None:
            if self.schedule.size is not None:
                return self.schedule.size
            split = yield from self._own_split()
        wire = self._link.wire
        counts = wire.listing(self.environment).counts
        if split not in counts:
            counts[split] = yield from operations.num_tasks(
                wire, self.environment, split
            )
        return counts[split]

    def _own_split(self) -> Operation[str]:
        splits = yield from self.list_splits()
        return choose_split(splits, self.config.split)

    def plan(
        self, random: np.random.Generator, options: Mapping[str, Any] | None
    ) -> Operation[Task]:
        """Return the operation that chooses the task of the next episode.

        It asks the server for nothing once the splits and their sizes are known.

        Args:
            random: The env's generator.
            options: The options of a reset.

        Raises:
            UnknownTaskError: If there is no such split or task.
            InvalidRequestError: If an option is not known.
        """
        options = options or {}
        unknown = [name for name in options if name not in _RESET_OPTIONS]
        if unknown:
            raise InvalidRequestError(
                f"reset does not know the option {unknown[0]!r}; it takes "
                f"{', '.join(_RESET_OPTIONS)}"
            )
        if "task" in options:
            return self._task_of(options)
        if "split" in options:
            split = choose_split((yield from self.list_splits()), options["split"])
        else:
            split = yield from self._own_split()
        if "task_index" in options:
            known = yield from self.count_tasks(split)
            return self.schedule.task_at(split, options["task_index"], known)
        count: int | None = None
        if self.schedule.size is None:
            count = yield from self.count_tasks(split)
        return self.schedule.next_task(split, count, random)

    def _task_of(self, options: Mapping[str, Any]) -> Task:
        """Return the task that a spec describes; its split is only what is said."""
        if not isinstance(options["task"], dict):
            raise InvalidRequestError("the option 'task' is a task spec, a dict")
        split = options.get("split", self.config.split) or ""
        return Task(split, -1, options["task"])

    def open(self, task: Task) -> Operation[Opened[S]]:
        """Return the operation that opens a session for a task.

        Args:
            task: The task.
        """
        if task.spec is not None:
            named: dict[str, Any] = {"task_spec": task.spec}
        else:
            named = {"split": task.split, "index": task.index}
        opening = 1
        while True:
            session = self._make_session(self.environment, named)
            try:
                prompt, tools = yield from session.start_operation()
            except SessionLostError:
                # Nothing was called yet: the server was restarted in between.
                if opening == _OPENINGS:
                    raise
                opening += 1
            else:
                return Opened(task, session, prompt, tools)

    def prepare(self, options: Mapping[str, Any] | None) -> Operation[None]:
        """Return the operation that asks for what `plan` has to know.

        Envs that share what they know ask once then, instead of all at the same time.

        Args:
            options: The options of a reset.
        """
        options = options or {}
        if "task" in options:
            return
        splits = yield from self.list_splits()
        if self.schedule.size is None or "task_index" in options:
            split = options.get("split", self.config.split)
            yield from self.count_tasks(choose_split(splits, split))


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
