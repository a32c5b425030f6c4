"""The async driver: sets an episode up, plays it, and records how it ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ors_gym.errors import AuthenticationError, InvalidRequestError, ORSError
from ors_gym.rollout.episode import Episode
from ors_gym.rollout.play import Act, Play, Rules, play
from ors_gym.rollout.policies import Asker, Policy
from ors_gym.rollout.reading import TurnReader
from ors_gym.rollout.task_env import TaskEnv
from ors_gym.tasks import Task

__all__ = ["Seat", "is_callers_fault", "play_on"]


def is_callers_fault(error: ORSError) -> bool:
    """Say whether an error is a mistake of the caller, whatever the task.

    Args:
        error: The error.

    Example:
        >>> is_callers_fault(AuthenticationError("no key"))
        True
    """
    return isinstance(error, InvalidRequestError | AuthenticationError)


async def play_on(game: Play, env: TaskEnv, answer: Any) -> bool:
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
        while isinstance(request, Act):
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
        self._asker = Asker()

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
                answer = await self._asker.ask(policy, episode)
                asked = await play_on(game, env, answer)
        finally:
            game.close()

    async def close(self) -> None:
        """Close the env; the thread ends when it is done."""
        self._asker.close()
        await self.env.close()


def _describe(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name
