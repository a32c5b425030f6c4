"""Chooses the task of an episode and opens a session for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from ors_gym.client.link import Link
from ors_gym.client.session_core import SessionCore
from ors_gym.config import EnvConfig
from ors_gym.errors import InvalidRequestError, SessionLostError
from ors_gym.protocol import operations
from ors_gym.protocol.exchange import Operation
from ors_gym.tasks import Task, TaskSchedule, choose_split
from ors_gym.types import Block, Split, ToolSpec

__all__ = ["Opened", "TaskPlanner"]

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
