"""An async env that is told which task to play, and that can be left and used again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env._async_env import AsyncORSEnv
from ors_gym.env._rules import ResetResult
from ors_gym.env._task_order import Task, choose_split
from ors_gym.errors import (
    AuthenticationError,
    InvalidRequestError,
    ORSError,
    UnknownTaskError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._play import Game, StepEnv, TurnReader, play
from ors_gym.rollout._policies import Policy, PolicyCaller
from ors_gym.rollout._rules import Rules
from ors_gym.types import JSONObject

__all__ = ["Seat", "TaskEnv", "find_task", "is_callers_fault", "play_on"]

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


def is_callers_fault(error: ORSError) -> bool:
    """Say whether an error is a mistake of the caller, whatever the task.

    Args:
        error: The error.

    Example:
        >>> is_callers_fault(AuthenticationError("no key"))
        True
    """
    return isinstance(error, InvalidRequestError | AuthenticationError)


async def play_on(game: Game, env: TaskEnv, answer: Any) -> bool:
    """Play until the policy is to be asked, or the episode is over.

    Args:
        game: The game, as `play` makes it.
        env: What is stepped.
        answer: What the policy returned; None at the beginning.

    Returns:
        Whether the policy is to be asked.

    Raises:
        ORSError: If the env raised what is no outage.
    """
    try:
        request = game.send(answer)
        while isinstance(request, StepEnv):
            try:
                result = await env.step(request.action)
            except ORSError as error:
                request = game.throw(error)
            else:
                request = game.send(result)
    except StopIteration:
        return False
    return True


class Seat:
    """Where episodes are played one after another: an env, and a thread for policies.

    Args:
        env: The env.
        rules: When episodes end.
    """

    def __init__(self, env: TaskEnv, rules: Rules) -> None:
        self.env = env
        self._rules = rules
        self._caller = PolicyCaller()

    async def play(self, episode: Episode, task: Task, policy: Policy) -> None:
        """Play an episode. Its session is deleted in the end, whatever happens.

        Args:
            episode: The episode; filled in.
            task: Its task.
            policy: What plays it.

        Raises:
            ORSError: If it is the caller's mistake; outages are recorded.
            Exception: What the policy raised; recorded too.
        """
        started = time.monotonic()
        deadline = self._rules.deadline
        try:
            async with asyncio.timeout(deadline):
                await self._play(episode, task, policy, started)
        except TimeoutError as error:
            if deadline is None or time.monotonic() - started < deadline:
                # The policy's own.
                episode.fail(error, "policy")
                raise
            if episode.stop_reason == "":
                self._rules.conclude(episode, "deadline")
        except Exception as error:
            if episode.stop_reason == "":
                episode.end_without_outcome(_describe(error), "policy")
                episode.cause = error
            raise
        finally:
            episode.seconds = time.monotonic() - started
            await self.env.leave()

    async def _play(
        self, episode: Episode, task: Task, policy: Policy, started: float
    ) -> None:
        env = self.env
        try:
            episode.observation, info = await env.start(task)
        except ORSError as error:
            episode.fail(error, error.kind)
            if is_callers_fault(error):
                raise
            return
        finally:
            episode.setup_seconds = time.monotonic() - started
        episode.environment = env.environment
        episode.prompt, episode.tools = list(info["blocks"]), list(env.tools)
        reader = TurnReader(env.tools, env.terminal_tool, self._rules.on_plain_text)
        game = play(episode, self._rules, reader, started)
        try:
            asked = await play_on(game, env, None)
            while asked:
                answer = await self._caller.call(policy, episode)
                asked = await play_on(game, env, answer)
        finally:
            game.close()

    async def close(self) -> None:
        """Close the env; the thread ends when it is done."""
        self._caller.close()
        await self.env.close()


def _describe(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name
