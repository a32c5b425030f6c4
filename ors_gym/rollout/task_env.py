"""An async env that is told which task to play, and that can be left and used again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ors_gym.async_env import AsyncORSEnv
from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env_core import ResetResult
from ors_gym.errors import InvalidRequestError, UnknownTaskError
from ors_gym.protocol import operations
from ors_gym.tasks import Task, choose_split
from ors_gym.types import JSONObject

__all__ = ["TaskEnv", "find_task"]

_OWN_ARGUMENTS = ("base_url", "on_error", "plain_text", "prefetch", "render_mode")


class TaskEnv(AsyncORSEnv):
    """`AsyncORSEnv` for rollouts: outages end an episode, and tasks are given.

    Args:
        client: The client.
        env_name: The environment's name on the server, in any case.
        **arguments: Those of `ORSEnv` that concern a session or a step.

    Raises:
        InvalidRequestError: If an argument cannot be right, or has no place here.
    """

    def __init__(self, client: AsyncORSClient, env_name: str, **arguments: Any) -> None:
        for name in _OWN_ARGUMENTS:
            if name in arguments:
                raise InvalidRequestError(f"a rollout does not take {name}=")
        try:
            super().__init__(env_name, client=client, on_error="truncate", **arguments)
        except TypeError as error:
            raise InvalidRequestError(f"unknown argument: {error}") from None

    async def start(self, task: Task) -> ResetResult:
        """Open a session for a task.

        Args:
            task: The task.

        Returns:
            Observation and info, as of a reset.
        """
        await self._learn()
        await self.leave()
        return self._core.begin(await self._client.run(self._core.open(task)))

    async def _learn(self) -> None:
        if not self._learned:
            # Its sessions say what tools they have; hundreds of envs begin at once.
            await self._client.run(self._core.learn(of_tools=False))
            self._learned = True

    async def leave(self) -> None:
        """Delete the session, in bounded time; the env can be used again."""
        try:
            if self.session is not None:
                await self.session.close()
        finally:
            self._core.leave()

    @property
    def session(self) -> AsyncSession | None:
        """The current session."""
        return self._core.session

    @property
    def environment(self) -> str:
        """The environment's name as the server spells it, once it was asked."""
        return self._core.environment

    @property
    def terminal_tool(self) -> JSONObject | None:
        """The tool that takes plain text, if the server declares one."""
        return self.session.terminal_tool if self.session is not None else None


async def find_task(
    client: AsyncORSClient, env_name: str, task: Any, split: str | None
) -> Task:
    """Find out which task is meant.

    Args:
        client: The client.
        env_name: The environment's name.
        task: Its index, or the task itself (a dict).
        split: The split of the index; ``train`` if None and there is one, else the
            only one.

    Returns:
        The task.

    Raises:
        UnknownTaskError: If there is no such split, or this names no task.
    """
    if isinstance(task, Mapping):
        return Task(split or "", -1, dict(task))
    if isinstance(task, Task):
        return task
    if isinstance(task, bool) or not hasattr(task, "__index__"):
        raise UnknownTaskError(
            f"a task is an index or a task spec (a dict), not {task!r:.200}"
        )
    listed = await client.run(operations.list_splits(client.link.wire, env_name))
    return Task(choose_split(listed, split), task.__index__())
