"""Play one episode, or several of one task."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Unpack

import gymnasium
from gymnasium.spaces import Text

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import run_and_wait
from ors_gym.env import ORSEnv
from ors_gym.env._open_for_task import find_task
from ors_gym.env._task_order import Task, TaskChoice
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._clients import (
    AnyClient,
    borrow_async,
    borrow_blocking,
    split_client_arguments,
)
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._episode_rules import RuleOptions, Rules, error_of, take_rules
from ors_gym.rollout._output import is_success
from ors_gym.rollout._planned_rollout import Planned
from ors_gym.rollout._player import EpisodePlayer, make_rollout_env
from ors_gym.rollout._policies import (
    Policy,
    check_seed,
    choose_policy,
    find_end,
    raise_of_policy,
)
from ors_gym.rollout._scheduler import Scheduler, Settings
from ors_gym.rollout._turn_by_turn import Clock, PlannedAction, TurnReader, play, resume
from ors_gym.spaces import ToolCallSpace
from ors_gym.types import Block


def run_episode(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    **rules: Unpack[RuleOptions],
) -> Episode:
    """Play one episode of a Gymnasium env, which may be wrapped.

    Args:
        env: An `ORSEnv`, or wrappers around one.
        policy: Called with the episode so far; returns an action, a list of actions,
            a `Turn`, or None to give up. An async one runs on a loop of its own.
        seed: The seed of the reset, which selects the task.
        options: The options of the reset.
        **rules: The arguments of `Rules`: ``max_turns``, ``deadline`` (checked between
            turns and steps), ``on_plain_text``, ``reward_reduction`` and
            ``nonterminal_reward``.

    Returns:
        The episode. An outage during a step ends it with ``stop_reason`` ``error``
        and no total reward, whatever the env's ``on_error``.

    Raises:
        ORSError: If the reset fails, or a step fails by a mistake of the caller.
        Exception: What the policy raises.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = gym.make("ors/math")
        >>> submit = {"tool": "submit", "input": {"answer": "no idea"}}
        >>> episode = run_episode(env, lambda episode: submit, seed=0)
        >>> env.close()
        >>> episode.stop_reason, episode.total_reward, len(episode.steps)
        ('finished', 0.0, 1)
    """
    checked = Rules(**rules)
    clock = Clock()
    observation, info = env.reset(seed=seed, options=options)
    episode = Episode(
        _environment_of(env),
        task_index=info.get("task_index", -1),
        split=info.get("split", ""),
        seed=seed,
        tools=list(getattr(env.unwrapped, "tools", [])),
        observation=observation,
        setup_seconds=clock.seconds,
    )
    episode.set_prompt(
        info.get("blocks") or [{"type": "text", "text": str(observation)}],
        getattr(env.unwrapped, "conversation", []),
    )
    try:
        _play_blocking(env, policy, episode, checked, clock)
    finally:
        episode.seconds = clock.seconds
        if (end := find_end(policy)) is not None:
            _ask_blocking(end, episode)
    return episode


def _play_blocking(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    episode: Episode,
    rules: Rules,
    clock: Clock,
) -> None:
    space = env.action_space
    reader = TurnReader(
        episode.tools,
        rules.on_plain_text,
        # A wrapper with another action space turns its own actions into calls.
        raw=not isinstance(space, ToolCallSpace | Text),
    )
    game = play(episode, rules, reader, clock)
    try:
        request = resume(game)
        while request is not None:
            if isinstance(request, PlannedAction):
                try:
                    result = env.step(request.action)
                except ORSError as error:
                    request = resume(game, error=error)
                else:
                    request = resume(game, result)
            else:
                request = resume(game, _ask_blocking(policy, episode))
    finally:
        game.close()


def _ask_blocking(policy: Policy, episode: Episode) -> Any:
    try:
        answer = policy(episode)
        if inspect.isawaitable(answer):
            answer = run_and_wait(_finish(answer))
    except BaseException as error:  # noqa: BLE001 - it is raised again
        raise_of_policy(error)
    return answer


async def _finish(answer: Awaitable[Any]) -> Any:
    return await answer


def _environment_of(env: gymnasium.Env[Any, Any]) -> str:
    name = getattr(env.unwrapped, "environment", None)
    if isinstance(name, str):
        return name
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


@takes_secrets
async def run_episode_async(
    client: AnyClient,
    env_name: str,
    task: TaskChoice,
    policy: Policy,
    *,
    split: str | None = None,
    seed: int | None = None,
    rules: Rules | None = None,
    **arguments: Any,
) -> Episode:
    """Play one episode of an environment.

    Args:
        client: A client (a blocking one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        task: Its index in the split, a pair of split and index, or the task itself.
        policy: Called with the episode so far; returns an action, a list of actions,
            a `Turn`, or None to give up. A plain function runs in a thread.
        split: The split of an index; ``train`` if None and there is one, else the
            only one.
        seed: Given to the policy as ``episode.seed``.
        rules: When the episode ends, in place of keyword arguments for that.
        **arguments: The arguments of `Rules`, such as ``max_turns`` and ``deadline``,
            and those of `ORSEnv`, such as ``secrets``, ``call_timeout``,
            ``max_episode_steps``, ``invalid_action_reward`` or ``create_options``.

    Returns:
        The episode; its session is deleted. An outage, or a set-up that failed, ends
        it with ``stop_reason`` ``error`` and no total reward.

    Raises:
        ORSError: If it is the caller's mistake, such as an unknown task.
        Exception: What the policy raises.

    Example:
        >>> import asyncio
        >>> async def policy(episode):
        ...     return {"tool": "guess", "input": {"number": 8}}
        >>> play = run_episode_async(None, "guess", 0, policy, max_turns=2)
        >>> episode = asyncio.run(play)
        >>> len(episode.turns) <= 2
        True
    """
    check_seed(seed)
    rules = rules or take_rules(arguments)
    connection, arguments = split_client_arguments(arguments)
    async with (
        borrow_async(client, connection) as own,
        EpisodePlayer(own, env_name, rules, arguments) as player,
    ):
        found = await player.env.find_task(task, split=split)
        episode = Episode(env_name, found.index, found.split, seed=seed)
        await player.play(episode, found, policy)
    return episode


@takes_secrets
async def run_group(
    client: AnyClient,
    env_name: str,
    task: TaskChoice,
    policy: Policy | None = None,
    *,
    n: int = 8,
    score_group: bool = False,
    policy_factory: Callable[[], Policy] | None = None,
    split: str | None = None,
    seed: int | None = None,
    rules: Rules | None = None,
    **arguments: Any,
) -> list[Episode]:
    """Play one task several times at once.

    Args:
        client: A client (a blocking one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        task: Its index in the split, a pair of split and index, or the task itself.
        policy: As for `run_episode_async`.
        n: The number of rollouts.
        score_group: Whether the server also scores the rollouts against each other.
            Each ``episode.group_score`` then holds ``reward`` and ``metadata``; the
            reward of the tools stays ``episode.total_reward``.
        policy_factory: Makes a policy for each rollout, in place of ``policy``.
        split: The split of an index.
        seed: ``episode.seed`` is this plus the number of the rollout.
        rules: As for `run_episode_async`.
        **arguments: As for `run_episode_async`.

    Returns:
        The episodes, in the order of their ``number``. Those that an outage ended
        have no total reward, and are not scored.

    Raises:
        InvalidRequestError: If an argument cannot be right, or if the server cannot
            score groups.
        Exception: What a policy raises; the other rollouts are cancelled then.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import random_policy
        >>> group = run_group(None, "math", 0, random_policy(0), n=2, max_turns=3)
        >>> [episode.number for episode in asyncio.run(group)]
        [0, 1]
    """
    if n < 1:
        raise InvalidRequestError("n must be at least 1")
    make_policy = choose_policy(policy, policy_factory)
    rules = rules or take_rules(arguments)
    connection, arguments = split_client_arguments(arguments)
    async with borrow_async(client, connection) as own:
        found = await own.run(find_task(own.catalog, env_name, task, split))
        planned = [Planned(found, number) for number in range(n)]
        settings = Settings(
            env_name=env_name,
            make_policy=make_policy,
            rules=rules,
            max_concurrent=n,
            seed=seed,
            env_arguments=arguments,
        )
        async with contextlib.aclosing(Scheduler(own, settings)) as scheduler:
            episodes = [settings.new_episode(one) for one in planned]
            left = iter(zip(planned, episodes, strict=True))

            async def work() -> None:
                await scheduler.play(*next(left))

            await scheduler.run(work)
        if score_group:
            await _score(own, env_name, found, episodes, arguments)
    return episodes


async def _score(
    client: AsyncORSClient,
    env_name: str,
    task: Task,
    episodes: list[Episode],
    arguments: Mapping[str, Any],
) -> None:
    """Have the server score the episodes with an outcome, on a session of the task."""
    played = [episode for episode in episodes if episode.total_reward is not None]
    if not played:
        return
    env = make_rollout_env(client, env_name, **arguments)
    try:
        await env.open(task)
        assert env.session is not None  # noqa: S101 - it was just opened
        candidates = [
            {
                "messages": episode.messages("ors"),
                "metadata": {"number": episode.number},
            }
            for episode in played
        ]
        scores = await env.session.score_group(candidates)
    finally:
        await env.close()
    for episode, score in zip(played, scores, strict=True):
        episode.group_score = score


class EpisodeRunner:
    """The episode runner of the published sample client: a subclass selects actions.

    Args:
        client: A client (an async one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        split: The split of tasks that are given by their index.
        max_steps: Steps after which an episode is cut short.
        **arguments: Further arguments of `ORSEnv`, such as ``secrets``.

    Example:
        >>> class Guesser(EpisodeRunner):
        ...     def select_action(self, observation):
        ...         return {"tool": "submit", "input": {"answer": "4"}}
        >>> result = Guesser(None, "math").run_episode(0)
        >>> sorted(result)
        ['steps', 'success', 'task', 'total_reward']
    """

    @takes_secrets
    def __init__(
        self,
        client: AnyClient,
        env_name: str,
        *,
        split: str | None = None,
        max_steps: int = 100,
        **arguments: Any,
    ) -> None:
        self.client = client
        self.env_name = env_name
        self._split = split
        self._connection, arguments = split_client_arguments(arguments)
        self._arguments = {"max_episode_steps": max_steps, **arguments}
        self.episode: Episode | None = None
        """The latest episode, with its turns and errors."""

    def run_episode(self, task: TaskChoice) -> dict[str, Any]:
        """Play one episode.

        Args:
            task: The task as the server listed it, or its index in the split.

        Returns:
            ``success`` (finished with a reward above 0), ``total_reward``, ``steps``
            and ``task``.

        Raises:
            ORSError: After an outage too, since there is no result then.
        """
        with borrow_blocking(self.client, self._connection) as client:
            options: dict[str, Any]
            if isinstance(task, Mapping):
                options = {"task": dict(task)}  # needs no split
            else:
                options = {"task_index": task}
            env = ORSEnv(
                self.env_name, client=client, split=self._split, **self._arguments
            )
            try:
                episode = run_episode(env, self._policy, options=options)
            finally:
                env.close()
        self.episode = episode
        if episode.total_reward is None:
            raise error_of(episode)
        return {
            "success": is_success(None, episode),
            "total_reward": episode.total_reward,
            "steps": len(episode.steps),
            "task": task,
        }

    def select_action(self, observation: list[Block]) -> Any:
        """Choose the next action; override it.

        Args:
            observation: The blocks of the prompt, then those of the last reply.

        Returns:
            An action in any form, or None to give up.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what to do: define "
            "select_action(self, observation)"
        )

    def _policy(self, episode: Episode) -> Any:
        return self.select_action(episode.blocks)
