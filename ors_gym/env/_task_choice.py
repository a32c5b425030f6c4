"""Chooses the task of each episode: by the options of a reset, else by the order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import numpy as np

from ors_gym.client._client_core import Catalog
from ors_gym.client._session_core import SessionCore
from ors_gym.env._opening import Opening
from ors_gym.env._settings import EnvSettings
from ors_gym.env._task_order import Task, TaskSchedule, TaskSet, choose_split
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.protocol._exchange import Operation
from ors_gym.types import Split

S = TypeVar("S", bound=SessionCore)

_RESET_OPTIONS: Final = ("task_index", "task", "split")


class TaskChooser(Generic[S]):
    """Chooses the task of each episode, and keeps the session that was opened ahead.

    Its operations ask the server for nothing that the client knows already.
    """

    def __init__(self, settings: EnvSettings, catalog: Catalog) -> None:
        self.ahead: Opening[S] | None = None
        """The session of the next task in the order, if it was opened ahead."""
        self._settings = settings
        self._catalog = catalog
        self._schedule = TaskSchedule(
            settings.tasks,
            settings.task_order,
            settings.task_offset,
            settings.task_stride,
        )

    @property
    def is_foreseeable(self) -> bool:
        """Whether the next task does not depend on how the present episode ends."""
        return self._schedule.is_foreseeable

    def choose(
        self, random: np.random.Generator, options: Mapping[str, Any] | None
    ) -> Operation[Task | Opening[S]]:
        """Return the operation that chooses what the next episode plays.

        Without options that is the session that was opened ahead, if there is one.
        """
        ahead = self.ahead
        if ahead is not None and not options:
            self.ahead = None
            return ahead
        return (yield from self.choose_task(random, options))

    def choose_task(
        self, random: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> Operation[Task]:
        """Return the operation that chooses the next task.

        Raises:
            UnknownTaskError: If there is no such split or task.
            InvalidRequestError: If an option is not known.
        """
        options = options or {}
        for name in options:
            if name not in _RESET_OPTIONS:
                raise InvalidRequestError(
                    f"reset does not know the option {name!r}; it takes "
                    f"{', '.join(_RESET_OPTIONS)}"
                )
        if "task" in options:
            if not isinstance(options["task"], dict):
                raise InvalidRequestError("the option 'task' is a task spec, a dict")
            return Task(self._wanted(options) or "", -1, options["task"])
        split = choose_split((yield from self.list_splits()), self._wanted(options))
        schedule = self._schedule
        if "task_index" in options:
            count = yield from self._count(split)
            return schedule.task_at(split, options["task_index"], count)
        known = (yield from self._count(split)) if schedule.size is None else None
        return schedule.next_task(split, known, random)

    def prepare(self, options: Mapping[str, Any] | None) -> Operation[None]:
        """Return the operation that asks for what `choose_task` has to know.

        Envs that share a client ask once then, instead of all at the same time.
        """
        options = options or {}
        if "task" in options:
            return
        split = choose_split((yield from self.list_splits()), self._wanted(options))
        if self._schedule.size is None or "task_index" in options:
            yield from self._count(split)

    def list_splits(self) -> Operation[list[Split]]:
        """Return the operation that lists the splits."""
        return self._catalog.splits(self._settings.env_name)

    def count_tasks(self) -> Operation[int]:
        """Return the operation that counts the tasks that are played."""
        if self._schedule.size is not None:
            return self._schedule.size
        split = choose_split((yield from self.list_splits()), self._settings.split)
        return (yield from self._count(split))

    def _count(self, split: str) -> Operation[int]:
        return self._catalog.count_tasks(self._settings.env_name, split)

    def _wanted(self, options: Mapping[str, Any]) -> str | None:
        split: str | None = options.get("split", self._settings.split)
        return split

    def seed(self, seed: int) -> None:
        """Let the next episode play the task that a seed selects."""
        self._schedule.seed(seed)
        self.discard_ahead()

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the tasks from the next episode on."""
        if self.ahead is not None:
            self.discard_ahead()
            self._schedule.step_back()
        self._schedule.set_tasks(tasks)

    def record(self, outcome: tuple[int, float | None] | None) -> None:
        """Note an episode's task index and reward, for curricula."""
        if outcome is not None:
            self._schedule.history.append(outcome)

    def discard_ahead(self) -> None:
        """Have the session deleted that was opened ahead, if there is one."""
        if self.ahead is not None:
            self.ahead.discard()
            self.ahead = None


def find_task(
    catalog: Catalog, env_name: str, task: object, split: str | None
) -> Operation[Task]:
    """Return the operation that finds out which task is meant.

    ``task`` is an index, a task spec (a mapping), a `Task` or an `Opening`; the split
    of an index is ``train`` if None and there is one, else the only one.
    """
    if isinstance(task, Mapping):
        return Task(split or "", -1, dict(task))
    if isinstance(task, Opening):
        task = task.task
    if isinstance(task, Task):
        return task
    if isinstance(task, bool) or not hasattr(task, "__index__"):
        raise UnknownTaskError(
            f"a task is an index or a task spec (a dict), not {task!r:.200}"
        )
    splits = yield from catalog.splits(env_name)
    return Task(choose_split(splits, split), task.__index__())
