"""The episode runner of the published sample client: subclass it, select actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ors_gym.env import ORSEnv
from ors_gym.rollout._clients import AnyClient, borrow_blocking
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._run import run_episode
from ors_gym.types import Block

__all__ = ["EpisodeRunner"]


class EpisodeRunner:
    """Plays episodes with the actions that a subclass selects.

    Args:
        client: A client (an async one lends its settings), a server's address, or
            None for ``ORS_BASE_URL`` or the embedded server.
        env_name: The environment's name on the server.
        split: The split of tasks that are given by their index.
        max_steps: Steps after which an episode is given up.
        **arguments: Further arguments of `ORSEnv`, such as ``secrets``.

    Example:
        >>> class Guesser(EpisodeRunner):
        ...     def select_action(self, observation):
        ...         return {"tool": "submit", "input": {"answer": "4"}}
        >>> result = Guesser(None, "math").run_episode(0)
        >>> sorted(result)
        ['steps', 'success', 'task', 'total_reward']
    """

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
        self._arguments = {"max_episode_steps": max_steps, **arguments}
        self.episode: Episode | None = None
        """The latest episode, for a look at its turns and errors."""

    def run_episode(self, task: int | Mapping[str, Any]) -> dict[str, Any]:
        """Play one episode.

        Args:
            task: The task as the server listed it, or its index in the split.

        Returns:
            ``success`` (finished with a reward above 0), ``total_reward``, ``steps``
            and ``task``.

        Raises:
            ORSError: After an outage too, since there is no result then.
        """
        with borrow_blocking(self.client) as client:
            split = self._split
            if isinstance(task, Mapping):
                options: dict[str, Any] = {"task": dict(task)}
                # A task that is given has no split, but the env asks for one.
                split = split or client.list_splits(self.env_name)[0]["name"]
            else:
                options = {"task_index": task}
            env = ORSEnv(self.env_name, client=client, split=split, **self._arguments)
            try:
                episode = run_episode(env, self._policy, options=options)
            finally:
                env.close()
        self.episode = episode
        if episode.total_reward is None and episode.cause is not None:
            raise episode.cause
        reward = episode.total_reward or 0.0
        return {
            "success": episode.finished and reward > 0,
            "total_reward": reward,
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
