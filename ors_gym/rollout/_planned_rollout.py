"""A rollout that is to be played: its task, its number, and its identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from ors_gym.env._task_order import Task, read_task
from ors_gym.errors import UnknownTaskError

Key: TypeAlias = tuple[str, int | str, int]
"""An episode's identity: split, index or digest of the task, number."""


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """One episode to be played: the ``number``-th of its task, from 0."""

    task: Task
    number: int

    @property
    def key(self) -> Key:
        return identify(self.task.split, self.task.index, self.task.spec, self.number)


def identify(
    split: str, index: int, spec: Mapping[str, Any] | None, number: int
) -> Key:
    """Return an episode's key, which is the same in every process."""
    if spec is None:
        return split, index, number
    text = json.dumps(spec, sort_keys=True, allow_nan=False)
    return split, hashlib.sha256(text.encode()).hexdigest(), number


def read_planned_task(task: object, split: str | None) -> Task:
    """Read a task as `read_task` does; a task spec must have an identity."""
    read = read_task(task, split)
    if read.spec is not None:
        try:
            json.dumps(read.spec, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnknownTaskError(f"a task spec is JSON, but {error}") from None
    return read
