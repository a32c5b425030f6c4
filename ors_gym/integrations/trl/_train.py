"""Everything that a GRPOTrainer needs to train on an ORS environment.

`trl_environment` asks the server for tasks and tools before training. It makes the
dataset with a row for each task, the factory of environments, and the reward function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import run_and_wait
from ors_gym.env._settings import TaskEnvSettings, find_server
from ors_gym.env._task_order import Task, TaskSchedule, TaskSet, choose_split
from ors_gym.errors import (
    InvalidRequestError,
    ORSError,
    SetupFailedError,
    UnknownTaskError,
    import_extra,
)
from ors_gym.integrations import ATTEMPTS
from ors_gym.integrations.trl._environment import EnvironmentFactory, EpisodeReward
from ors_gym.integrations.trl._tool_methods import merge_tools
from ors_gym.rollout._clients import split_client_arguments
from ors_gym.rollout._episode_rules import RewardReduction, Rules
from ors_gym.rollout._player import make_rollout_env
from ors_gym.types import TaskSpec, ToolSpec

# Arguments of `ORSEnv` that `trl_environment` takes.
_ENV_ARGUMENTS: Final = frozenset(
    {"api_key", "call_timeout", "client_options", "create_options", "headers"}
    | {"invalid_action_reward", "max_episode_steps", "on_tool_error", "secrets"}
    | {"env_overrides", "session_options", "setup_timeout", "terminal_tool_as"}
    | {"tool_schemas", "toolset"}
)
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


class TRLEnvironment(NamedTuple):
    """Arguments of `trl.GRPOTrainer`, by their names there.

    Args:
        environment_factory: An `EnvironmentFactory`; after `combine_environments` a
            dict of these by name.
        train_dataset: A `datasets.Dataset` with a row for each task: ``prompt``,
            ``environment``, ``task_index``, and the chosen ``columns``.
        reward_funcs: A list of one function, which returns the server's rewards.

    Example:
        >>> made = trl_environment("math", tasks=range(4))
        >>> [reward.__name__ for reward in made.reward_funcs]
        ['math_reward']
    """

    environment_factory: Any
    train_dataset: Any
    reward_funcs: list[EpisodeReward]


class _Answers(NamedTuple):
    """The server's answers before training."""

    chosen: _ChosenTasks
    columns: dict[str, list[Any]]
    listings: list[list[ToolSpec]]


def trl_environment(
    env_name: str,
    base_url: str | None = None,
    *,
    split: str | None = None,
    tasks: TaskSet | None = None,
    secrets: Mapping[str, str] | None = None,
    system_prompt: str | None = None,
    columns: Sequence[str] = (),
    reward_reduction: RewardReduction = "sum",
    nonterminal_reward: float | None = None,
    num_generations: int = 1,
    images: bool = True,
    tool_probes: int | None = 32,
    attempts: int = ATTEMPTS,
    name: str | None = None,
    **arguments: Any,
) -> TRLEnvironment:
    """Make an ORS environment ready for TRL's ``GRPOTrainer``.

    The tools become typed methods with Google docstrings. A name that cannot be a
    method's is replaced, such as ``files.read`` by ``files_read``. If the server
    refuses a call, or the session lacks the tool, the model reads why. After the end
    of an episode no call reaches the server. Where the server declares a terminal tool,
    a rollout's last message, if it holds no call, is the tool's argument when the
    reward is computed (``terminal_tool_as="tool"`` leaves that out). After an outage
    the rollout goes on with another session, if the environment answers as before
    (``attempts``). The model never sees an outage: a rollout that it ends gets the
    reward None, which a trainer leaves out of the loss.

    Args:
        env_name: The environment's name on the server, in any case.
        base_url: The server's address, as for `ORSEnv`.
        split: The split; ``train`` if None and there is one, else the only one.
        tasks: Narrows the split: a range, indexes, or task specs.
        secrets: Values for the environment, by name.
        system_prompt: A system message before the prompt of every task.
        columns: Fields of the task specs to copy into the dataset. It holds no others,
            because a task spec usually holds the answer.
        reward_reduction: How the rewards of an episode's steps become one: ``sum``,
            ``last``, ``mean``, ``max`` or ``min``.
        nonterminal_reward: Added if the server did not finish the episode; None adds
            nothing.
        num_generations: The trainer's ``num_generations``. The sessions of a task's
            rollouts are opened together instead of one after another.
        images: Whether the model gets the images in replies; else they are described
            in the text.
        tool_probes: The number of tasks, evenly spread, whose sessions are asked for
            their tools before training; None for all. The model can call the tools of
            any of them.
        attempts: How often an episode is played at most where outages end it: with the
            same calls, on another session.
        name: The environment's name in the column ``environment`` and in the logged
            reward; ``env_name`` if None.
        **arguments: ``max_episode_steps``, ``invalid_action_reward``,
            ``on_tool_error``, ``terminal_tool_as``, ``tool_schemas``,
            ``call_timeout``, ``setup_timeout``, ``api_key``, ``headers``,
            ``create_options``, ``session_options`` and ``client_options``, as for
            `ORSEnv`. Put no secret into ``create_options`` or ``session_options``: a
            pickle of the factory holds them.

    Returns:
        The three arguments: ``GRPOTrainer(model=..., args=..., **made._asdict())``.

    Raises:
        UnknownEnvironmentError: If the server has no such environment.
        UnknownTaskError: If there is no such split or task.
        InvalidRequestError: If an argument is wrong.
        MissingExtraError: If `datasets` is not installed.
        ORSError: If the server cannot be reached, or no task can be set up.

    Example:
        >>> made = trl_environment("math", tasks=range(4), num_generations=8)
        >>> list(made.train_dataset["task_index"])
        [0, 1, 2, 3]
    """
    for argument in arguments:
        if argument not in _ENV_ARGUMENTS:
            raise InvalidRequestError(f"trl_environment does not take {argument}=")
    rules = Rules(
        reward_reduction=reward_reduction, nonterminal_reward=nonterminal_reward or 0.0
    )
    if min(num_generations, attempts, tool_probes or 1) < 1 or tool_probes == 0:
        raise InvalidRequestError(
            "num_generations, attempts and tool_probes are at least 1"
        )
    arguments["secrets"] = secrets
    settings = TaskEnvSettings(env_name=env_name, **arguments)
    address = find_server(base_url)

    async def ask() -> _Answers:
        async with AsyncORSClient(address, **settings.client_arguments()) as client:
            chosen = await _choose_tasks(client, env_name, split, tasks)
            found = await _list_columns(client, env_name, chosen, columns)
            _, rest = split_client_arguments(arguments)
            listings = await _list_tools(
                client, env_name, chosen.tasks, tool_probes, rest
            )
            return _Answers(chosen, found, listings)

    answers = run_and_wait(ask())
    chosen = answers.chosen
    factory = EnvironmentFactory(
        name=name or env_name,
        env_name=env_name,
        base_url=address,
        arguments=arguments,
        split=chosen.tasks[0].split,
        specs=chosen.specs,
        tools=merge_tools(answers.listings),
        images=images,
        num_generations=num_generations,
        rules=rules,
        attempts=attempts,
    )
    dataset = _make_dataset(
        factory.name, chosen.indexes, answers.columns, system_prompt
    )
    return TRLEnvironment(factory, dataset, [EpisodeReward(factory.name)])


def combine_environments(*environments: TRLEnvironment) -> TRLEnvironment:
    """Train on several environments at once.

    Args:
        *environments: Results of `trl_environment`, each with a ``name`` of its own.

    Returns:
        One dataset of all tasks. Its column ``environment`` names the environment of a
        row, and the model sees only the tools of that environment. Each environment
        keeps its own reward function, so logs show them apart.

    Raises:
        InvalidRequestError: If two have the same name, or there are none.

    Example:
        >>> combine_environments()
        Traceback (most recent call last):
        ors_gym.errors.InvalidRequestError: there are no environments to combine
    """
    if not environments:
        raise InvalidRequestError("there are no environments to combine")
    from datasets import concatenate_datasets  # noqa: PLC0415 - an optional dependency

    factories: dict[str, EnvironmentFactory] = {}
    for factory in _factories(environments):
        if factory.name in factories:
            raise InvalidRequestError(
                f"two environments are named {factory.name!r}; pass name= to "
                "trl_environment to tell them apart"
            )
        factories[factory.name] = factory
    return TRLEnvironment(
        factories,
        concatenate_datasets([one.train_dataset for one in environments]),
        [reward for one in environments for reward in one.reward_funcs],
    )


def _factories(environments: Iterable[TRLEnvironment]) -> Iterable[EnvironmentFactory]:
    for made in environments:
        factory = made.environment_factory
        if isinstance(factory, dict):
            yield from factory.values()
        else:
            yield factory


class _ChosenTasks(NamedTuple):
    """The tasks that are trained on, one for each row."""

    tasks: list[Task]
    # The column ``task_index``.
    indexes: list[int]
    # The task specs, if the caller gave specs and not indexes.
    specs: list[TaskSpec] | None


async def _choose_tasks(
    client: AsyncORSClient, env_name: str, split: str | None, tasks: TaskSet | None
) -> _ChosenTasks:
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
        return _ChosenTasks(listed, list(range(len(specs))), specs)
    chosen = choose_split(await client.list_splits(env_name), split)
    count = await client.num_tasks(env_name, chosen)
    wanted: Sequence[Any] = range(count) if tasks is None else tasks
    if not 0 < len(wanted) <= _MOST_TASKS:
        raise UnknownTaskError(
            f"split {chosen!r} has {count} tasks; a dataset has 1 to {_MOST_TASKS} "
            f"rows, one for each task: choose tasks, such as tasks=range(1000)"
        )
    listed = [schedule.task_at(chosen, index, count) for index in wanted]
    return _ChosenTasks(listed, [task.index for task in listed], None)


async def _list_tools(
    client: AsyncORSClient,
    env_name: str,
    tasks: Sequence[Task],
    probes: int | None,
    arguments: Mapping[str, Any],
) -> list[list[ToolSpec]]:
    """Ask ``probes`` of the tasks, evenly spread, for the tools of their sessions.

    A task whose set-up fails is left out; if all fail, the first error is raised.
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


async def _list_columns(
    client: AsyncORSClient, env_name: str, chosen: _ChosenTasks, names: Sequence[str]
) -> dict[str, list[Any]]:
    """Copy the named fields of the task specs, and no others, into columns.

    A task spec usually holds the answer. A trainer gives each row of a dataset to every
    reward function, and prints it in logs.
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


def _make_dataset(
    name: str,
    indexes: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    system_prompt: str | None,
) -> Any:
    """Make a `datasets.Dataset` with a row for each task."""
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
