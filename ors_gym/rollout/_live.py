"""An episode that somebody else plays: a training framework with a loop of its own.

`run_episode` asks a policy. Here the framework starts an episode, hands in one answer
of its model after another, and gets the messages that answer it. Reading, limits,
outages and the reward are those of every other rollout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Self

from ors_gym import errors
from ors_gym.client import AsyncORSClient
from ors_gym.errors import EpisodeOverError, ORSError
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._episode import (
    Episode,
    Step,
    StopReason,
    messages_of_last_turn,
)
from ors_gym.rollout._play import Clock, Game
from ors_gym.rollout._player import advance, make_rollout_env, start_game
from ors_gym.rollout._policies import Policy, PolicyCaller
from ors_gym.rollout._rules import OUTAGES, Rules, take_rules
from ors_gym.types import JSONObject

_BY_KIND: Final[dict[str, type[ORSError]]] = {
    error.kind: error for name in errors.__all__ if (error := getattr(errors, name))
}


class LiveEpisode:
    """One episode of one task, played from outside, one turn at a time.

    Used as an async context manager, it deletes its session whatever happens.

    Args:
        client: The client; not closed here.
        env_name: The environment's name on the server.
        task: Its index in the split, or the task itself.
        split: The split of an index; ``train`` if None and there is one, else the
            only one.
        number: Which episode of this task it is, from 0.
        rules: When it ends, and what it is worth, in place of the keyword arguments
            for that. A deadline is looked at between turns and steps.
        **arguments: ``max_turns``, ``deadline``, ``on_plain_text``,
            ``reward_reduction`` and ``nonterminal_reward``, and the arguments of
            `ORSEnv`, all as for `run_episode_async`.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> from ors_gym.rollout import connect
        >>> async def play():
        ...     async with connect() as client, LiveEpisode(client, "math", 0) as live:
        ...         await live.start()
        ...         await live.take('{"tool": "submit", "input": {"answer": "?"}}')
        ...         return live.episode
        >>> episode = asyncio.run(play())
        >>> episode.stop_reason, episode.total_reward
        ('finished', 0.0)
    """

    @takes_secrets
    def __init__(
        self,
        client: AsyncORSClient,
        env_name: str,
        task: int | Mapping[str, Any],
        *,
        split: str | None = None,
        number: int = 0,
        rules: Rules | None = None,
        **arguments: Any,
    ) -> None:
        rules = rules or take_rules(arguments)
        self.episode = Episode(env_name, number=number)
        """What happened so far. Its ``total_reward`` is a running figure."""
        self._task = (task, split)
        self._rules = rules
        self._env = make_rollout_env(client, env_name, **arguments)
        self._game: Game | None = None
        self._turn = asyncio.Lock()
        self._clock = Clock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ended(self) -> bool:
        """Whether no further turn is taken."""
        return bool(self.episode.stop_reason)

    async def start(self) -> list[JSONObject]:
        """Open the session.

        Returns:
            The prompt as chat messages, which ``episode.messages()`` begins with.

        Raises:
            ORSError: If there is no such task, or it cannot be set up.
        """
        episode, env = self.episode, self._env
        self._clock = Clock()
        try:
            task, split = self._task
            found = await env.find_task(task, split=split)
            episode.task_index, episode.split = found.index, found.split
            self._game = await start_game(episode, env, found, self._rules, self._clock)
        except ORSError as error:
            episode.fail(error, error.kind)
            raise
        await self._go_on(None)
        return episode.messages()

    async def take(self, answer: Any) -> list[JSONObject]:
        """Play one turn. Turns that are handed in at once are played in their order.

        One that is cancelled ends the episode, since nobody knows what came of its tool
        call: as after a deadline, what was earned before counts. Any other exception
        ends it without a reward.

        Args:
            answer: What the model said: text, an action or a list of actions, an
                assistant's message, a `Turn`; None if it gives up.

        Returns:
            The chat messages that answer it; every tool call's id is answered, also
            of calls that were not run because the episode was over.

        Raises:
            EpisodeOverError: If it has not started, or has ended.
            ORSError: For an outage. The episode then has no reward.
        """
        async with self._turn:
            before = len(self.episode.turns)
            await self._play_turn(answer)
            if len(self.episode.turns) == before:
                return []
            return messages_of_last_turn(self.episode)[1]

    async def step(self, answer: Any) -> list[Step]:
        """As `take`, for who shows the steps in a form of their own.

        Args:
            answer: As for `take`.

        Returns:
            What came of the turn's actions, as far as they were run.

        Raises:
            EpisodeOverError: If it has not started, or has ended.
            ORSError: For an outage. The episode then has no reward.
        """
        async with self._turn:
            before = len(self.episode.steps)
            await self._play_turn(answer)
            return self.episode.steps[before:]

    async def play(self, policy: Policy) -> Episode:
        """Let a policy play on to the end.

        Args:
            policy: As for `run_episode_async`.

        Returns:
            The episode. An outage ends it without a reward.

        Raises:
            EpisodeOverError: If it has not started.
            Exception: What the policy raises.
        """
        caller = PolicyCaller()
        try:
            while not self.ended:
                await self.step(await self._ask(caller, policy))
        except ORSError:
            if self.episode.error_kind not in OUTAGES:
                raise
        finally:
            await caller.end(policy, self.episode)
            caller.close()
        return self.episode

    async def _ask(self, caller: PolicyCaller, policy: Policy) -> Any:
        if self._game is None:
            raise EpisodeOverError("no policy is asked: the episode has not started")
        try:
            return await caller.call(policy, self.episode)
        except BaseException as error:
            await self._break_off(error)
            raise

    async def _play_turn(self, answer: Any) -> None:
        episode = self.episode
        if self._game is None or self.ended:
            why = f"ended ({episode.stop_reason})" if self.ended else "not started"
            raise EpisodeOverError(f"the episode takes no turn: it has {why}")
        try:
            await self._go_on(answer)
        except BaseException as error:
            await self._break_off(error)
            raise
        finally:
            episode.seconds = self._clock.seconds
        if episode.total_reward is None:
            kind = _BY_KIND.get(episode.error_kind, ORSError)
            raise episode.cause or kind(episode.error)

    async def _go_on(self, answer: Any) -> None:
        """Play until the next turn is wanted, or the episode is over."""
        game = self._game
        assert game is not None  # noqa: S101 - the callers looked
        if not await advance(game, self._env, answer):
            await self._env.leave()

    async def _break_off(self, error: BaseException) -> None:
        """End an episode that waits for what will never come."""
        if self._game is not None:
            self._game.close()
        if isinstance(error, asyncio.CancelledError):
            self.stop("deadline")
        elif not self.ended:
            self.episode.fail(error, "policy")
        await self._env.leave()

    def stop(self, reason: StopReason = "policy_stopped") -> float | None:
        """End it from outside, say because the model's context is full.

        Args:
            reason: Why. What ended by itself keeps its own reason.

        Returns:
            The episode's reward; None if it has none, because of an outage or because
            it never started.
        """
        if self._game is None:
            return None
        if not self.ended:
            self._rules.conclude(self.episode, reason)
        return self.episode.total_reward

    async def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        if self._game is not None:
            self._game.close()
        await self._env.close()
