"""What the bundled environments share: numbered tasks, splits, an end.

A task is made from its split and index alone, so a set costs nothing until a task is
asked for. Each split draws from its own range of seeds, and `random.Random` seeded
with an integer gives the same numbers in every process and Python version.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar, Final, Literal

from ors import Environment, Split, TextBlock, ToolOutput

__all__ = ["SPLITS", "NumberedTasks", "SplitName", "over", "reply"]

SplitName = Literal["train", "validation", "test"]

SPLITS: Final[dict[SplitName, int]] = {"train": 1000, "validation": 200, "test": 200}
"""The splits of every bundled environment, with their numbers of tasks."""

_SEEDS_PER_SPLIT: Final = 1_000_000


def reply(text: str, *, reward: float = 0.0, finished: bool = False) -> ToolOutput:
    """Give a tool's result that is one text.

    Args:
        text: What the player reads.
        reward: What the step pays.
        finished: Whether the episode ends here.

    Returns:
        The result.

    Example:
        >>> reply("Correct.", reward=1.0, finished=True).reward
        1.0
    """
    return ToolOutput(
        blocks=[TextBlock(text=text)], metadata=None, reward=reward, finished=finished
    )


def over() -> ToolOutput:
    """Give the result of a call after the end, which does and pays nothing.

    ors-sdk itself would run the tool and pay again (docs/wire.md, "Dialects").

    Returns:
        A finished result with a reward of 0.
    """
    return reply("The episode is over.", finished=True)


class NumberedTasks(Environment):
    """An environment whose tasks are made from a split and an index.

    A subclass names itself with `served_name`, makes a task in `make_task` and reads it
    in `read_task`, which runs before the set-up, so that a task it cannot read is a
    failed set-up.

    Args:
        task_spec: A task as `make_task` made it, or one of the caller's own.
        secrets: Not used by any bundled environment.
    """

    served_name: ClassVar[str]

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

    @classmethod
    @abstractmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Make the task of a split that the generator's seed selects.

        Args:
            split: The split.
            generator: Random numbers of this task alone.

        Returns:
            The task, without its id.
        """

    @abstractmethod
    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take from the task what the episode needs.

        Args:
            task: The task.

        Raises:
            KeyError: If something is missing.
            TypeError: If something has the wrong type.
            ValueError: If something has a wrong value.
        """

    @classmethod
    def name(cls) -> str:
        """Give the name it is served under.

        Returns:
            `served_name`.
        """
        return cls.served_name

    @classmethod
    @functools.cache
    def list_splits(cls) -> Sequence[Split | str]:
        """List the splits.

        Returns:
            train, validation and test.
        """
        return [Split(name=name, type=name) for name in SPLITS]

    @classmethod
    def list_tasks(cls, split: str) -> list[Mapping[str, Any]]:
        """List every task of a split.

        Args:
            split: The split's name.

        Returns:
            The tasks, in order.
        """
        return [cls.task_at(split, index) for index in range(_size(split))]

    @classmethod
    async def num_tasks(cls, split: str) -> int:
        """Count the tasks of a split without making them.

        Args:
            split: The split's name.

        Returns:
            How many there are.
        """
        return _size(split)

    @classmethod
    async def get_task(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task.

        Args:
            split: The split's name.
            index: Its place, from 0.

        Returns:
            The task.
        """
        return cls.task_at(split, index)

    @classmethod
    def task_at(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task.

        Args:
            split: The split's name.
            index: Its place, from 0.

        Returns:
            The task, with an ``id`` that no other task has.

        Raises:
            IndexError: If there is no such task; the server answers 400.
        """
        if not 0 <= index < _size(split):
            raise IndexError(f"{split} has the tasks 0 to {_size(split) - 1}")
        name = _split_name(split)
        seed = _SEEDS_PER_SPLIT * list(SPLITS).index(name) + index
        task = cls.make_task(name, Random(seed))  # noqa: S311 - tasks, not keys
        return {"id": f"{cls.served_name}-{name}-{index}", **task}


def _split_name(split: str) -> SplitName:
    for name in SPLITS:
        if name == split:
            return name
    raise IndexError(f"no split {split!r}; there are {', '.join(SPLITS)}")


def _size(split: str) -> int:
    return SPLITS[_split_name(split)]
