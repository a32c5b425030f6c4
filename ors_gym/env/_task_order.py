"""Which task an episode plays: splits, sets of tasks, and their order.

Pure arithmetic: it asks nothing of a server, and a set of 10^9 tasks takes no more
memory than one of ten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, SupportsIndex, TypeAlias

import numpy as np

from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.protocol._requests import read_index
from ors_gym.types import Split, TaskSpec

TaskOrder: TypeAlias = Literal["sequential", "shuffle", "random"]
TaskHistory: TypeAlias = Sequence[tuple[int, float | None]]
"""The episodes of an env so far: task index, and total reward (None: an outage)."""
TaskSet: TypeAlias = (
    range
    | Sequence[int]
    | Sequence[TaskSpec]
    | Callable[[np.random.Generator, TaskHistory], int]
)

_SEED_LIMIT: Final = 2**31
_SHARED_START: Final = int.from_bytes(os.urandom(4)) % _SEED_LIMIT
"""The first place of all unseeded envs of this process that share a set of tasks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """The task of one episode."""

    split: str
    index: int
    """The task's place in the split, or -1 where only its spec is known."""
    spec: TaskSpec | None = None

    @property
    def title(self) -> str:
        """What people call the task, without what it holds."""
        if self.index < 0:
            return "a task of your own"
        return f"task {self.index}" + (f" of {self.split}" if self.split else "")


class NextTask(NamedTuple):
    """The option ``task`` of a reset that plays on in the order of tasks."""

    spec: TaskSpec | None
    """What is played in the place of the task whose turn it is; that itself if None."""
    extra: TaskSpec
    """Further fields of the task."""


TaskChoice: TypeAlias = int | Mapping[str, Any] | tuple[str, int]
"""A task as users give it: an index, a task spec, or a split and an index."""


def read_task(task: object, split: str | None) -> Task:
    """Read what a `TaskChoice` or a `Task` names.

    Without a split, that of an index is ``""``.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, Mapping):
        return Task(split or "", -1, dict(task))
    index = task
    if isinstance(task, tuple) and len(task) == 2 and isinstance(task[0], str):
        split, index = task
    if isinstance(index, bool) or not isinstance(index, SupportsIndex):
        raise UnknownTaskError(
            "a task is an index, a task spec (a dict) or (split, index), not "
            f"{task!r:.200}"
        )
    return Task(split or "", index.__index__())


class TaskSchedule:
    """The sequence of tasks that one env plays.

    A seed selects a task; later episodes go on from there, ``stride`` places at a
    time. N envs with offsets 0 to N-1, stride N and seeds s to s+N-1 (as Gymnasium's
    vector envs seed theirs) play N different tasks, then N others.

    In ``sequential`` order the seed s begins at s modulo the size of the set; in
    ``shuffle`` at the s-th place of a permutation that the seed chooses; ``random``
    draws with replacement.
    """

    def __init__(
        self,
        tasks: TaskSet | None = None,
        order: TaskOrder = "sequential",
        offset: int = 0,
        stride: int = 1,
    ) -> None:
        if order not in ("sequential", "shuffle", "random"):
            raise InvalidRequestError(
                f"task_order is {order!r}; it is 'sequential', 'shuffle' or 'random'"
            )
        if offset < 0 or stride < 1:
            raise InvalidRequestError(
                f"task_offset must be at least 0 and task_stride at least 1; they are "
                f"{offset} and {stride}"
            )
        self._order = order
        self._offset = offset
        self._stride = stride
        self._start: int | None = None
        self._rounds: Counter[str | None] = Counter()
        """How many episodes were chosen: under None those of the order, under a split's
        name those that a reset asked for by `split`."""
        self.history: list[tuple[int, float | None]] = []
        self.set_tasks(tasks)

    def set_tasks(self, tasks: TaskSet | None) -> None:
        """Narrow the set from which the next episode is chosen."""
        if tasks is not None and not callable(tasks):
            listed = hasattr(tasks, "__len__") and hasattr(tasks, "__getitem__")
            if isinstance(tasks, str | bytes | dict) or not listed:
                raise InvalidRequestError(
                    "tasks= takes a range, a list of indexes, a list of task specs, or "
                    f"a function f(rng, history) -> index; not {type(tasks).__name__}"
                )
            if len(tasks) == 0:
                raise InvalidRequestError("tasks= is empty; there is nothing to play")
        self._tasks = tasks

    @property
    def size(self) -> int | None:
        """The number of tasks, or None where the server has to be asked."""
        if self._tasks is None or callable(self._tasks):
            return None
        return len(self._tasks)

    @property
    def is_foreseeable(self) -> bool:
        """Whether the next task does not depend on how the present episode ends."""
        return not callable(self._tasks)

    def seed(self, seed: int) -> None:
        """Let the next episode play the task that a seed selects."""
        self._start = seed
        self._rounds.clear()

    def step_back(self) -> None:
        """Take back the last choice, which was made ahead and will not be played."""
        if self.is_foreseeable:
            # A function's choice took no place of the order.
            self._rounds[None] = max(0, self._rounds[None] - 1)

    def next_task(
        self,
        split: str,
        count: int | None,
        random: np.random.Generator,
        *,
        aside: bool = False,
    ) -> Task:
        """Choose the task of the next episode.

        ``count`` is the number of tasks in the split; None will do where `size` is
        known. An episode ``aside`` takes no place of the order: those of each split
        have an order of their own, with the same start.
        """
        if callable(self._tasks):
            return self.task_at(split, self._tasks(random, tuple(self.history)), count)
        size = self.size if self.size is not None else count
        if not size:
            raise UnknownTaskError(f"split {split!r} has no tasks")
        index = self._next_index(size, random, split if aside else None)
        if self._tasks is None:
            return Task(split, index)
        chosen: Any = self._tasks[index]
        if isinstance(chosen, dict):
            return Task(split, -1, chosen)
        return self.task_at(split, chosen, count)

    def task_at(self, split: str, index: object, count: int | None) -> Task:
        """Check an index that somebody chose, against the number of tasks if known."""
        index = read_index(index)
        if index < 0 or (count is not None and index >= count):
            raise unknown_task(split, index, count)
        return Task(split, index)

    def _next_index(
        self, size: int, random: np.random.Generator, aside: str | None
    ) -> int:
        if self._start is None:
            shared = self._stride > 1
            start = _SHARED_START if shared else int(random.integers(_SEED_LIMIT))
            self._start = start + self._offset
        turn = self._rounds[aside]
        self._rounds[aside] += 1
        place = self._start + turn * self._stride
        # The seeds of envs that share a set differ by their offsets. Without them all
        # have one key, so they walk one permutation.
        key = self._start - self._offset
        if self._order == "sequential":
            return place % size
        if self._order == "shuffle":
            return permute(place % size, size, key)
        return (_scramble(key, turn) + self._offset) % size


def unknown_task(split: str, index: int, count: int | None) -> UnknownTaskError:
    """Make the error for an index that a split, of ``count`` tasks if known, lacks."""
    size = "" if count is None else f", which has {count} tasks"
    return UnknownTaskError(f"there is no task {index} in split {split!r}{size}")


def choose_split(splits: Sequence[Split], wanted: str | None) -> str:
    """Choose the wanted split, else ``train``, else the only split.

    Validation and test are never chosen silently.
    """
    names = [split["name"] for split in splits]
    listed = ", ".join(repr(name) for name in names) or "none"
    if wanted is not None:
        if wanted in names:
            return wanted
        raise UnknownTaskError(f"there is no split {wanted!r}; the splits: {listed}")
    if "train" in names:
        return "train"
    if len(names) == 1:
        return names[0]
    raise UnknownTaskError(f"there is no split 'train'; pass split=, one of: {listed}")


def permute(place: int, count: int, key: int) -> int:
    """Map the places of ``range(count)`` onto themselves, by the permutation of a key.

    A Feistel network over the next power of four, walked until it lands within the
    set (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): constant
    memory, whatever the size of the set.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            left, right = right, left ^ (_scramble(key, turn, right) & mask)
        place = left << half | right
        if place < count:
            return place


def _scramble(*numbers: int) -> int:
    """Return 64 bits that depend on every number, the same on every machine."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
