"""A rollout that is to be played: its task, its number, and its identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from ors_gym.env._task_order import Task
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


def read_task(one: Any, split: str | None) -> Task:
    """Read a task as users give it: an index, a task spec, or a split and an index."""
    if isinstance(one, Task):
        return one
    if isinstance(one, Mapping):
        try:
            json.dumps(spec := dict(one), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnknownTaskError(f"a task spec is JSON, but {error}") from None
        return Task(split or "", -1, spec)
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str):
        return Task(one[0], _read_index(one[1]))
    return Task(split or "", _read_index(one))


def _read_index(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UnknownTaskError(
            f"a task is an index, a task spec (a dict) or (split, index), not "
            f"{value!r:.200}"
        )
    index: int = value.__index__()
    return index
