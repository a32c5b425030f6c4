"""What is learned of the tasks before training: rows for a dataset, and their tools."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task, TaskSchedule, TaskSet, choose_split
from ors_gym.errors import (
    InvalidRequestError,
    ORSError,
    SetupFailedError,
    UnknownTaskError,
    import_extra,
)
from ors_gym.rollout._driver import TaskEnv
from ors_gym.types import TaskSpec, ToolSpec

__all__ = ["ChosenTasks", "choose_tasks", "list_columns", "list_tools", "make_dataset"]

_LOGGER: Final = logging.getLogger(__name__)
_MOST_TASKS: Final = 1_000_000
_AT_ONCE: Final = 16
"""Sessions that are open at the same time, and requests for tasks."""
_RESERVED: Final = frozenset(
    {"completion", "completion_ids", "completions", "environment", "environments"}
    | {"image", "images", "log_extra", "log_metric", "prompt", "prompts"}
    | {"task_index", "tools", "trainer_state"}
)
"""Columns that mean something to TRL, or to us."""


class ChosenTasks(NamedTuple):
    """The tasks that are trained on.

    Args:
        tasks: One for each row.
        indexes: The column ``task_index``.
        specs: The tasks themselves, where they were given.
    """

    tasks: list[Task]
    indexes: list[int]
    specs: list[TaskSpec] | None


async def choose_tasks(
    client: AsyncORSClient, env_name: str, split: str | None, tasks: TaskSet | None
) -> ChosenTasks:
    """Find out which tasks are meant.

    Args:
        client: The client.
        env_name: The environment's name.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Narrows it: a range, indexes, or task specs.

    Returns:
        The tasks.

    Raises:
        InvalidRequestError: If the set is none that a dataset can hold.
        UnknownTaskError: If there is no such split or task.
    """
    schedule = TaskSchedule(tasks)
    if callable(tasks):
        raise InvalidRequestError(
            "a dataset holds its tasks: tasks= takes a range, indexes or task specs "
            "here, and no function"
        )
    if tasks is not None and any(isinstance(task, Mapping) for task in tasks):
        specs = [dict(task) for task in tasks if isinstance(task, Mapping)]
        if len(specs) != len(tasks):
            raise InvalidRequestError("tasks= is either all indexes or all task specs")
        listed = [Task(split or "", -1, spec) for spec in specs]
        return ChosenTasks(listed, list(range(len(specs))), specs)
    chosen = choose_split(await client.list_splits(env_name), split)
    count = await client.num_tasks(env_name, chosen)
    wanted: Sequence[Any] = range(count) if tasks is None else tasks
    if not 0 < len(wanted) <= _MOST_TASKS:
        raise UnknownTaskError(
            f"split {chosen!r} has {count} tasks; a dataset has a row for each, and at "
            f"most {_MOST_TASKS}: narrow them, say with tasks=range(1000)"
        )
    listed = [schedule.task_at(chosen, index, count) for index in wanted]
    return ChosenTasks(listed, [task.index for task in listed], None)


async def list_tools(
    client: AsyncORSClient,
    env_name: str,
    tasks: Sequence[Task],
    probes: int | None,
    arguments: Mapping[str, Any],
) -> list[list[ToolSpec]]:
    """Ask sessions of several tasks for their tools.

    Args:
        client: The client.
        env_name: The environment's name.
        tasks: The tasks.
        probes: How many of them are asked, evenly spread; None for all.
        arguments: What the sessions are opened with.

    Returns:
        The tools of each that could be set up; at least of one.

    Raises:
        ORSError: If no task could be set up, or the server cannot be reached.
    """
    count = len(tasks) if probes is None else min(probes, len(tasks))
    asked = [tasks[place * len(tasks) // count] for place in range(count)]
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(task: Task) -> list[ToolSpec] | ORSError:
        async with free:
            env = TaskEnv(client, env_name, **arguments)
            try:
                await env.start(task)
            except SetupFailedError as error:
                _LOGGER.warning("%s: task %s: %s", env_name, task.index, error)
                return error
            finally:
                await env.close()
            return env.tools

    answers = await asyncio.gather(*map(ask, asked))
    listings = [answer for answer in answers if not isinstance(answer, ORSError)]
    for answer in answers:
        if isinstance(answer, ORSError) and not listings:
            raise answer
    return listings


async def list_columns(
    client: AsyncORSClient,
    env_name: str,
    chosen: ChosenTasks,
    names: Sequence[str],
) -> dict[str, list[Any]]:
    """Take columns from the task specs: those that are asked for, and no other.

    A task spec usually holds the answer, and what is in a row of a dataset is given to
    every reward function and printed in logs.

    Args:
        client: The client.
        env_name: The environment's name.
        chosen: The tasks.
        names: Fields of the task specs.

    Returns:
        The values of all tasks, by column; None where a task has no such field.

    Raises:
        InvalidRequestError: If a name is taken, or no task has such a field.
    """
    if isinstance(names, str):
        raise InvalidRequestError("columns= is a list of names, not one name")
    taken = sorted(_RESERVED.intersection(names))
    if taken:
        raise InvalidRequestError(f"columns= cannot hold {taken[0]!r}: it is TRL's own")
    if not names:
        return {}
    free = asyncio.Semaphore(_AT_ONCE)

    async def get(task: Task) -> TaskSpec:
        if task.spec is not None:
            return task.spec
        async with free:
            return await client.get_task(env_name, task.split, task.index)

    specs = await asyncio.gather(*map(get, chosen.tasks))
    for name in names:
        if all(name not in spec for spec in specs):
            fields = ", ".join(sorted({field for spec in specs for field in spec}))
            raise InvalidRequestError(
                f"columns= names {name!r}, which no task has; the tasks have: {fields}"
            )
    return {name: [spec.get(name) for spec in specs] for name in names}


def make_dataset(
    name: str,
    indexes: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    system_prompt: str | None,
) -> Any:
    """Make a `datasets.Dataset` with a row for each task.

    Args:
        name: The column ``environment``.
        indexes: The column ``task_index``.
        columns: The other columns, by name.
        system_prompt: Stands before the prompt of every task.

    Returns:
        The dataset. Its column ``prompt`` ends with an empty user message, which a
        reset fills.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        InvalidRequestError: If the values of a column have no type in common.
    """
    dataset = import_extra("datasets", "trl", "Training with TRL").Dataset
    prompt = [{"role": "user", "content": ""}]
    if system_prompt is not None:
        prompt.insert(0, {"role": "system", "content": system_prompt})
    rows = {
        "prompt": [prompt] * len(indexes),
        "environment": [name] * len(indexes),
        "task_index": list(indexes),
        **columns,
    }
    try:
        return dataset.from_dict(rows)
    except (ValueError, TypeError) as error:  # ArrowInvalid is a ValueError
        raise InvalidRequestError(
            f"the columns {', '.join(columns)} cannot stand in a dataset: its columns "
            f"have one type each: {error}"
        ) from None
