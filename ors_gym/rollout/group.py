"""A group of rollouts of one task, as GRPO and its relatives want them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout.clients import AnyClient, borrow_async
from ors_gym.rollout.driving import Seat
from ors_gym.rollout.episode import Episode
from ors_gym.rollout.play import Rules
from ors_gym.rollout.policies import Policy, choose_policy
from ors_gym.rollout.task_env import TaskEnv, find_task
from ors_gym.tasks import Task

__all__ = ["run_group"]


async def run_group(
    client: AnyClient,
    env_name: str,
    task: int | Mapping[str, Any],
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
        task: Its index in the split, or the task itself.
        policy: As for `run_episode_async`.
        n: The number of rollouts.
        score_group: Whether the server also scores the rollouts against each other;
            each ``episode.group_score`` then holds ``reward`` and ``metadata``, beside
            the reward that the tools gave and not in its place.
        policy_factory: Makes a policy for each rollout, in place of ``policy``.
        split: The split of an index.
        seed: ``episode.seed`` is this plus the number of the rollout.
        rules: When the episodes end, in place of the keyword arguments for that.
        **arguments: ``max_turns``, ``deadline``, ``on_plain_text``,
            ``reward_reduction`` and ``nonterminal_reward``, and the arguments of
            `ORSEnv`, all as for `run_episode_async`.

    Returns:
        The episodes, in the order of their ``number``. Those that an outage ended
        have no total reward, and are not scored.

    Raises:
        InvalidRequestError: If an argument cannot be right, or the server cannot
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
    if rules is None:
        names = Rules.__dataclass_fields__.keys() & arguments.keys()
        rules = Rules(**{name: arguments.pop(name) for name in names})
    async with borrow_async(client) as own:
        found = await find_task(own, env_name, task, split)
        episodes = [
            Episode(
                env_name,
                found.index,
                found.split,
                number,
                None if seed is None else seed + number,
            )
            for number in range(n)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for episode in episodes:
                    seat = Seat(TaskEnv(own, env_name, **arguments), rules)
                    tasks.create_task(_play(seat, episode, found, make_policy()))
        except BaseExceptionGroup as group:
            # What went wrong first is what a caller can act on.
            raise group.exceptions[0] from None
        if score_group:
            await _score(own, env_name, found, episodes, arguments)
    return episodes


async def _play(seat: Seat, episode: Episode, task: Task, policy: Policy) -> None:
    try:
        await seat.play(episode, task, policy)
    finally:
        await seat.close()


async def _score(
    client: AsyncORSClient,
    env_name: str,
    task: Task,
    episodes: list[Episode],
    arguments: Mapping[str, Any],
) -> None:
    """Have the episodes that have an outcome scored on a session of their task."""
    played = [episode for episode in episodes if episode.total_reward is not None]
    if not played:
        return
    env = TaskEnv(client, env_name, **arguments)
    try:
        await env.start(task)
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
