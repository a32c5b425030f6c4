"""Plays episodes: opens the session of a task, and asks a policy in turn."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.env import AsyncTaskEnv
from ors_gym.env._task_order import Task
from ors_gym.errors import AuthenticationError, InvalidRequestError, ORSError
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._play import Game, StepEnv, TurnReader, play
from ors_gym.rollout._policies import Policy, PolicyCaller
from ors_gym.rollout._rules import Rules

__all__ = ["Seat", "is_callers_fault", "make_rollout_env", "play_on", "start_game"]

_OWN_ARGUMENTS: Final = (
    *("base_url", "on_error", "plain_text", "prefetch", "render_mode"),
)


def make_rollout_env(
    client: AsyncORSClient, env_name: str, **arguments: Any
) -> AsyncTaskEnv:
    """Make the env of a rollout: an outage ends an episode, and does not raise."""
    for name in _OWN_ARGUMENTS:
        if name in arguments:
            raise InvalidRequestError(f"a rollout does not take {name}=")
    try:
        return AsyncTaskEnv(env_name, client=client, on_error="truncate", **arguments)
    except TypeError as error:
        raise InvalidRequestError(f"unknown argument: {error}") from None


def is_callers_fault(error: ORSError) -> bool:
    """Say whether an error is a mistake of the caller, whatever the task."""
    return isinstance(error, InvalidRequestError | AuthenticationError)


async def start_game(
    episode: Episode, env: AsyncTaskEnv, task: Task, rules: Rules, started: float
) -> Game:
    """Open the session of an episode, and fill in what the episode begins with."""
    try:
        episode.observation, info = await env.open(task)
    finally:
        episode.setup_seconds = time.monotonic() - started
    episode.environment = env.environment
    episode.prompt, episode.tools = list(info["blocks"]), list(env.tools)
    reader = TurnReader(env.tools, env.terminal_tool, rules.on_plain_text)
    return play(episode, rules, reader, started)


async def play_on(game: Game, env: AsyncTaskEnv, answer: Any) -> bool:
    """Play until the policy is to be asked (True), or the episode is over.

    ``answer`` is what the policy returned; None at the beginning.
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
    """An env that plays one episode after another, and a thread for policies."""

    def __init__(self, env: AsyncTaskEnv, rules: Rules) -> None:
        self.env = env
        self._rules = rules
        self._caller = PolicyCaller()

    async def play(self, episode: Episode, task: Task, policy: Policy) -> None:
        """Play an episode and fill it in. Its session is deleted, whatever happens.

        Outages are recorded. A mistake of the caller, and what the policy raised, is
        recorded and raised.
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
            game = await start_game(episode, env, task, self._rules, started)
        except ORSError as error:
            episode.fail(error, error.kind)
            if is_callers_fault(error):
                raise
            return
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
