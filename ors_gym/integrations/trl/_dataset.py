"""The tasks as rows of a dataset, and the tools of their sessions, before training."""

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
from ors_gym.rollout._run import make_rollout_env
from ors_gym.types import TaskSpec, ToolSpec

_LOGGER: Final = logging.getLogger(__name__)
_MOST_TASKS: Final = 1_000_000
# The most sessions that are open at the same time, and the most requests for tasks.
_AT_ONCE: Final = 16
# Columns that mean something to TRL, or to us.
_RESERVED: Final = frozenset(
    {"completion", "completion_ids", "completions", "environment", "environments"}
    | {"image", "images", "log_extra", "log_metric", "prompt", "prompts"}
    | {"task_index", "tools", "trainer_state"}
)


class ChosenTasks(NamedTuple):
    """The tasks that are trained on, one for each row."""

    tasks: list[Task]
    # The column ``task_index``.
    indexes: list[int]
    # The task specs, if the caller gave specs and not indexes.
    specs: list[TaskSpec] | None


async def choose_tasks(
    client: AsyncORSClient, env_name: str, split: str | None, tasks: TaskSet | None
) -> ChosenTasks:
    """Look up the tasks that the arguments of `trl_environment` name."""
    schedule = TaskSchedule(tasks)
    if callable(tasks):
        raise InvalidRequestError(
            "tasks= cannot be a function here, because a dataset lists its tasks; pass "
            "a range, indexes or task specs"
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
            f"split {chosen!r} has {count} tasks; a dataset has 1 to {_MOST_TASKS} "
            f"rows, one for each task: choose tasks, such as tasks=range(1000)"
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
    """Ask ``probes`` of the tasks, evenly spread, for the tools of their sessions.

    A task whose set-up fails is left out.

    Raises:
        ORSError: If no task could be set up, or the server cannot be reached.
    """
    count = len(tasks) if probes is None else min(probes, len(tasks))
    asked = [tasks[place * len(tasks) // count] for place in range(count)]
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(task: Task) -> list[ToolSpec] | ORSError:
        async with free:
            env = make_rollout_env(client, env_name, **arguments)
            try:
                await env.open(task)
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
    """Copy the named fields of the task specs, and no others, into columns.

    A task spec usually holds the answer. A trainer gives each row of a dataset to every
    reward function, and prints it in logs.

    Raises:
        InvalidRequestError: If a name is reserved, or no task has such a field.
    """
    if isinstance(names, str):
        raise InvalidRequestError("columns= takes a list of names, not a string")
    taken = sorted(_RESERVED.intersection(names))
    if taken:
        raise InvalidRequestError(
            f"columns= cannot name {taken[0]!r}: TRL uses this column"
        )
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

    Raises:
        MissingExtraError: If `datasets` is not installed.
        InvalidRequestError: If the values of a column have no type in common.
    """
    dataset = import_extra("datasets", "trl", "Training with TRL").Dataset
    # A reset fills the empty user message.
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
            f"the columns {', '.join(columns)} do not fit into a dataset, where each "
            f"column has one type: {error}"
        ) from None
