"""Data sets of reasoning-gym as ORS environments: a question, one ``submit``, a score.

A task is an item of the data set, which its generator makes anew from the item's index,
and its scorer scores. The splits are ranges of indexes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ors import TextBlock, ToolOutput, tool
from pydantic import BaseModel, Field

from ors_gym.errors import InvalidRequestError, import_extra
from ors_gym.server.adapters._arguments import read_arguments
from ors_gym.server.adapters._worker import Worker
from ors_gym.server.environments._base import (
    SPLITS,
    IndexedTasks,
    SplitName,
    over,
    reply,
)

_SEED: Final = 0


class Answer(BaseModel):
    """The input of ``submit``."""

    answer: str = Field(description="The answer, in the form that is asked for.")


class ReasoningGymEnvironment(IndexedTasks):
    """One question of a data set; `find` makes a subclass for each data set."""

    dataset: ClassVar[Any]
    worker: ClassVar[Worker]

    @classmethod
    def task_at(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make the task of an item (see `IndexedTasks.task_at`)."""
        name = cls.find_split(split, index)
        item = _first_item(cls.split_sizes, name) + index
        entry = cls.dataset[item]
        return {
            "id": f"{cls.served_name}-{item}",
            "split": name,
            "item": item,
            "question": entry["question"],
            # Some data sets have none, and score an answer by what it does.
            "answer": entry["answer"],
        }

    @classmethod
    async def get_task(cls, split: str, index: int) -> Mapping[str, Any]:
        """Make one task without keeping the event loop: some take long."""
        return await cls.worker.run(lambda: cls.task_at(split, index))

    @classmethod
    async def list_tasks(cls, split: str) -> list[Mapping[str, Any]]:  # type: ignore[override]
        """Make all tasks of a split."""
        indexes = range(cls.split_size(split))
        return await asyncio.gather(*(cls.get_task(split, index) for index in indexes))

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take the item's index (see `IndexedTasks.read_task`)."""
        self._item = int(task["item"])
        size = sum(self.split_sizes.values())
        if not 0 <= self._item < size:
            raise IndexError(f"the data set has the items 0 to {size - 1}")

    async def setup(self) -> None:
        """Make the item anew: what its scorer needs is not part of the task."""
        self._entry = await self.worker.run(lambda: self.dataset[self._item])

    def get_prompt(self) -> list[TextBlock]:
        """Ask the question."""
        return [TextBlock(text=self._entry["question"])]

    @tool
    async def submit(self, params: Answer) -> ToolOutput:
        """Submit the answer; this ends the episode."""
        if self.finished:
            return over()
        self.finished = True
        score = await self.worker.run(
            lambda: self.dataset.score_answer(params.answer, self._entry)
        )
        return reply(f"Score: {score:g}.", reward=float(score), finished=True)


def find(wanted: str) -> type[ReasoningGymEnvironment]:
    """Make the class for ``reasoning_gym:NAME`` or ``NAME?argument=value&...``.

    The argument ``size`` is the number of tasks of all splits.
    """
    name, arguments = read_arguments(wanted)
    factory = import_extra(
        "reasoning_gym.factory", "reasoning-gym", "A data set of reasoning-gym"
    )
    if name not in factory.DATASETS:
        near = ", ".join(sorted(factory.DATASETS))
        raise InvalidRequestError(
            f"reasoning-gym has no data set {name!r}; it has {near}"
        )
    size = arguments.pop("size", sum(SPLITS.values()))
    sizes = _split_sizes(size)
    try:
        dataset = factory.create_dataset(
            name, **{"seed": _SEED, **arguments, "size": size}
        )
        dataset[0]
    except Exception as error:
        raise InvalidRequestError(
            f"the data set {name} of reasoning-gym cannot be made: "
            f"{type(error).__name__}: {error}"
        ) from error
    attributes = {
        "served_name": re.sub(r"[^\w.-]+", "-", name),
        "dataset": dataset,
        "split_sizes": sizes,
        "worker": Worker(name),
    }
    return type(f"Served{name}", (ReasoningGymEnvironment,), attributes)


def _split_sizes(size: Any) -> dict[SplitName, int]:
    """Give validation and test a seventh each, as those of the bundled ones have."""
    least = len(SPLITS)
    if not isinstance(size, int) or size < least:
        raise InvalidRequestError(f"size is {size!r}; it is a number, at least {least}")
    other = max(1, size // 7)
    return {"train": size - 2 * other, "validation": other, "test": other}


def _first_item(sizes: Mapping[SplitName, int], split: SplitName) -> int:
    names = list(sizes)
    return sum(sizes[name] for name in names[: names.index(split)])
