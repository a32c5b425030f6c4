"""Which episodes an evaluation plays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task, TaskChoice, choose_split, unknown_task
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout._planned_rollout import Key, Planned, read_planned_task

Tasks: TypeAlias = Iterable[TaskChoice] | None
"""Indexes, task specs, pairs of split and index; None for a whole split."""

_LARGEST_WHOLE_SPLIT: Final = 1_000_000
"""The largest split that is played in full when no tasks are named."""


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
    server = _Splits(client, env_name)
    has_indexes = tasks is None
    if tasks is None:
        split = await server.choose(split)
        tasks = _all_of(split, await server.count(split))
    listed = []
    for one in tasks:
        if not isinstance(one, Mapping | tuple | Task):
            if not has_indexes:
                split, has_indexes = await server.choose(split), True
            # At once, since a range may be far longer than its split.
            await server.check(read_planned_task(one, split))
        listed.append(one)
    chosen = [read_planned_task(one, split) for one in listed]
    for task in chosen:
        await server.check(task)
    splits = {task.split for task in chosen}
    only = splits.pop() if len(splits) == 1 else split
    return Plan(chosen, episodes_per_task, only or None)


class _Splits:
    """What the server says of the splits of an environment."""

    def __init__(self, client: AsyncORSClient, env_name: str) -> None:
        self._client = client
        self._env_name = env_name
        self._counts: dict[str, int] = {}

    async def choose(self, split: str | None) -> str:
        return choose_split(await self._client.list_splits(self._env_name), split)

    async def count(self, split: str) -> int:
        if split not in self._counts:
            found = await self._client.num_tasks(self._env_name, split)
            self._counts[split] = found
        return self._counts[split]

    async def check(self, task: Task) -> None:
        """Raise `UnknownTaskError` where a task has an index that the split lacks."""
        if task.spec is None and not 0 <= task.index < await self.count(task.split):
            raise unknown_task(task.split, task.index, await self.count(task.split))


def _all_of(split: str, size: int) -> range:
    if size > _LARGEST_WHOLE_SPLIT:
        raise InvalidRequestError(
            f"the split {split!r} has {size} tasks; name those to play, as with "
            "tasks=range(100)"
        )
    return range(size)
