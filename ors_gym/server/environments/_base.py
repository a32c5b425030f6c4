"""What the bundled environments share: numbered tasks, splits, results, the end.

A task is made from its split and index alone, so a set of tasks costs nothing until one
is asked for. Each split has its own range of seeds. `random.Random` seeded with an
integer gives the same numbers in every process and Python version.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any, ClassVar, Final, Literal

from ors import Environment, Split, TextBlock, ToolOutput

SplitName = Literal["train", "validation", "test"]

# The number of tasks of each split.
SPLITS: Final[dict[SplitName, int]] = {"train": 1000, "validation": 200, "test": 200}

_SEEDS_PER_SPLIT: Final = 1_000_000


def reply(text: str, *, reward: float = 0.0, finished: bool = False) -> ToolOutput:
    return ToolOutput(
        blocks=[TextBlock(text=text)], metadata=None, reward=reward, finished=finished
    )


def over() -> ToolOutput:
    """Make the result of a call after the end, which does nothing and pays nothing.

    ors-sdk itself would run the tool and pay again (docs/wire.md, "Dialects").
    """
    return reply("The episode is over.", finished=True)


def is_same_answer(given: str, expected: str) -> bool:
    """Compare as numbers, in whatever notation, or else as text without its case."""
    try:
        return Decimal(given.replace(",", "")) == Decimal(expected)
    except InvalidOperation:
        return given.strip().casefold() == expected.casefold()


class IndexedTasks(Environment):
    """An environment that makes each task when it is asked for.

    A subclass sets `served_name`, makes a task in `task_at` and reads one in
    `read_task`. Callers may pass a task of their own.
    """

    served_name: ClassVar[str]
    split_sizes: ClassVar[Mapping[SplitName, int]] = SPLITS

    def __init__(
        self, task_spec: Mapping[str, Any], secrets: dict[str, str] | None = None
    ) -> None:
        super().__init__(task_spec=task_spec, secrets=secrets or {})
        self.finished = False
        try:
            self.read_task(task_spec)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"The {self.served_name} environment cannot read this task: "
                f"{type(error).__name__}: {error}. Pass a task as it lists them."
            ) from error

    @abstractmethod
    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take from the task what the episode needs.

        It runs before `setup`. A `LookupError`, `TypeError` or `ValueError` makes the
        set-up fail with a message that names the environment.
        """

    @classmethod
    @abstractmethod
    def task_at(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task; `find_split` refuses an index outside the split."""

    @classmethod
    def name(cls) -> str:
        return cls.served_name

    @classmethod
    @functools.cache
    def list_splits(cls) -> Sequence[Split | str]:
        return [Split(name=name, type=name) for name in cls.split_sizes]

    @classmethod
    def list_tasks(cls, split: str) -> list[Mapping[str, Any]]:
        return [cls.task_at(split, index) for index in range(cls.split_size(split))]

    @classmethod
    async def num_tasks(cls, split: str) -> int:
        return cls.split_size(split)

    @classmethod
    async def get_task(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task; an index outside the split is answered with status 400."""
        return cls.task_at(split, index)

    @classmethod
    def find_split(cls, split: str, index: int) -> SplitName:
        """Return the split that an index is in; raise an IndexError if it is not."""
        size = cls.split_size(split)
        if not 0 <= index < size:
            raise IndexError(f"{split} has the tasks 0 to {size - 1}")
        return next(name for name in cls.split_sizes if name == split)

    @classmethod
    def split_size(cls, split: str) -> int:
        """Return the number of tasks; raise an IndexError if there is no such split."""
        for name, size in cls.split_sizes.items():
            if name == split:
                return size
        splits = ", ".join(cls.split_sizes)
        raise IndexError(f"no split {split!r}; there are {splits}")


class NumberedTasks(IndexedTasks):
    """An environment whose tasks are made from random numbers of their own.

    A subclass makes a task in `make_task`.
    """

    @classmethod
    @abstractmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Make a task from random numbers that are this task's own; the id is added."""

    @classmethod
    def task_at(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task, with an ``id`` that no other task has."""
        name = cls.find_split(split, index)
        seed = _SEEDS_PER_SPLIT * list(SPLITS).index(name) + index
        task = cls.make_task(name, Random(seed))  # noqa: S311 - tasks, not keys
        return {"id": f"{cls.served_name}-{name}-{index}", **task}
