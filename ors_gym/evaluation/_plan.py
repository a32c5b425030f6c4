"""Which episodes an evaluation plays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task, choose_split
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.rollout._planned import Key, Planned, read_task

Tasks: TypeAlias = Iterable[int | Mapping[str, Any] | tuple[str, int]] | None
"""Indexes, task specs, pairs of split and index; None for a whole split."""

_MOST_UNNAMED: Final = 1_000_000
"""Tasks of a split up to which all of them are meant if none is named."""


class Plan:
    """The episodes of an evaluation: every task once, then every task again, ...

    A task that is listed twice is played twice as often. ``split`` is None where the
    tasks are of several splits, or of none.
    """

    def __init__(
        self, tasks: Sequence[Task], episodes_per_task: int, split: str | None
    ) -> None:
        self._tasks = tasks
        self._rounds = episodes_per_task
        self.split = split

    def __len__(self) -> int:
        return len(self._tasks) * self._rounds

    def __iter__(self) -> Iterator[Planned]:
        seen: Counter[Key] = Counter()
        for _ in range(self._rounds):
            for task in self._tasks:
                key = Planned(task, 0).key
                yield Planned(task, seen[key])
                seen[key] += 1


async def make_plan(
    client: AsyncORSClient,
    env_name: str,
    tasks: Tasks,
    split: str | None,
    episodes_per_task: int,
) -> Plan:
    """Find out which tasks are meant, and check with the server that there are such."""
    if episodes_per_task < 1:
        raise InvalidRequestError("episodes_per_task must be at least 1")
    named = isinstance(tasks, Iterable) and not isinstance(tasks, str | bytes | Mapping)
    if not (named or tasks is None):
        raise InvalidRequestError(
            "tasks= takes indexes, tasks as the server lists them, pairs of split and "
            f"index, or None for the whole split; not {type(tasks).__name__}"
        )
    counts: dict[str, int] = {}

    async def count(name: str) -> int:
        if name not in counts:
            counts[name] = await client.num_tasks(env_name, name)
        return counts[name]

    listed = None if tasks is None else list(tasks)
    needs_split = listed is None or any(
        not isinstance(one, Mapping | tuple | Task) for one in listed
    )
    if needs_split:
        split = choose_split(await client.list_splits(env_name), split)
    if listed is None:
        listed = _list_all(await count(split or ""), split)
    chosen = [read_task(one, split) for one in listed]
    for task in chosen:
        if task.spec is not None:
            continue
        known = await count(task.split)
        if not 0 <= task.index < known:
            raise UnknownTaskError(
                f"there is no task {task.index} in split {task.split!r}, which has "
                f"{known} tasks"
            )
    splits = {task.split for task in chosen}
    only = splits.pop() if len(splits) == 1 else split
    return Plan(chosen, episodes_per_task, only or None)


def _list_all(size: int, split: str | None) -> list[Any]:
    if size > _MOST_UNNAMED:
        raise InvalidRequestError(
            f"the split {split!r} has {size} tasks; name those to play, as with "
            "tasks=range(100)"
        )
    return list(range(size))
