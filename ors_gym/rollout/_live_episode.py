"""An episode that somebody else plays: a training framework with a loop of its own.

`run_episode` asks a policy for each action. Here the framework starts an episode and
hands in its model's answers one by one. It gets chat messages back for each. How
answers are read, limits, outages and the reward are the same as in every other rollout.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any, Self

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env._open_for_task import Opening
from ors_gym.env._task_order import Task, TaskChoice
from ors_gym.errors import (
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SetupFailedError,
)
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._differences import Difference, compare_steps, repeated_turns
from ors_gym.rollout._episode import (
    Attempt,
    Episode,
    Step,
    StopReason,
    messages_of_last_turn,
)
from ors_gym.rollout._episode_rules import OUTAGES, Rules, error_of, take_rules
from ors_gym.rollout._player import advance, make_rollout_env, start_game
from ors_gym.rollout._policies import Policy, PolicyCaller
from ors_gym.rollout._turn_by_turn import Clock, Game
from ors_gym.types import JSONObject


class LiveEpisode:
    """One episode of one task, played from outside, one turn at a time.

    Used as an async context manager, it deletes its session whatever happens.

    Args:
        client: The client, which is not closed here; or a server's address, or None
            for ``ORS_BASE_URL`` or the embedded server, with a client of its own.
        env_name: The environment's name on the server.
        task: Its index in the split, a pair of split and index, the task itself, or
            what `AsyncTaskEnv.open_ahead` returned.
        split: The split of an index; ``train`` if None and there is one, else the
            only one.
        number: Which episode of this task it is, from 0.
        attempts: How often it is played at most where an outage or a failed set-up
            ends it. It is opened again on a new session, and the turns before are
            played again. If the environment answers as before, the episode goes on,
            and nobody notices; else the outage is raised. The earlier attempts are
            recorded in ``episode.attempts``.
        rules: When it ends, and what it is worth, in place of the keyword arguments
            for that. A deadline is looked at between turns and steps.
        **arguments: ``max_turns``, ``deadline``, ``on_plain_text``,
            ``reward_reduction`` and ``nonterminal_reward``, and the arguments of
            `ORSEnv`, all as for `run_episode_async`.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> async def play():
        ...     async with LiveEpisode(None, "math", 0) as live:
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
        client: AsyncORSClient | str | None,
        env_name: str,
        task: TaskChoice | Task | Opening[AsyncSession],
        *,
        split: str | None = None,
        number: int = 0,
        attempts: int = 1,
        rules: Rules | None = None,
        **arguments: Any,
    ) -> None:
        if attempts < 1:
            raise InvalidRequestError("attempts must be at least 1")
        rules = rules or take_rules(arguments)
        self.episode = Episode(env_name, number=number)
        """What happened so far. Its ``total_reward`` is a running figure."""
        self._task = (task, split)
        self._ahead = task if isinstance(task, Opening) else None
        self._found: Task | None = None
        self._attempts = attempts
        self._collected = 0.0
        self._rules = rules
        self._env = make_rollout_env(client, env_name, **arguments)
        self._game: Game | None = None
        self._is_closed = False
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
            ORSError: If there is no such task, or it cannot be set up. The episode is
                closed then.
        """
        self._clock = Clock()
        try:
            while not await self._try_to_open():
                pass
        except BaseException:
            await self.close()
            raise
        await self._go_on(None)
        return self.episode.messages()

    async def _try_to_open(self) -> bool:
        """Open a session; False if that failed, and is tried again."""
        episode, env = self.episode, self._env
        setup_seconds = episode.setup_seconds
        try:
            if self._found is None:
                task, split = self._task
                self._found = await env.find_task(task, split=split)
                episode.task_index = self._found.index
                episode.split = self._found.split
            opened, self._ahead = self._ahead or self._found, None
            self._game = await start_game(
                episode, env, opened, self._rules, self._clock
            )
        except ORSError as error:
            episode.fail(error, error.kind)
            is_repeated = error.outage or isinstance(error, SetupFailedError)
            if not is_repeated or not self._begin_again():
                raise
            return False
        episode.setup_seconds = setup_seconds or episode.setup_seconds
        return True

    def _begin_again(self) -> bool:
        """Empty the record for another attempt, if there is one left."""
        episode = self.episode
        if len(episode.attempts) + 1 >= self._attempts:
            return False
        episode.seconds = self._clock.seconds
        episode.attempts.append(Attempt.of(episode))
        episode.turns, episode.steps = [], []
        episode.stop_reason, episode.total_reward = "", 0.0
        episode.error, episode.error_kind, episode.cause = "", "", None
        return True

    async def take(self, answer: Any) -> list[JSONObject]:
        """Play one turn. Turns that are handed in at once are played in their order.

        A cancelled turn ends the episode, since it is unknown whether its tool ran.
        What was earned before counts, as after a deadline. Any other exception ends the
        episode without a reward.

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
        """Play one turn as `take` does, and return its steps in place of messages.

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
        if self._game is None or self.ended or self._is_closed:
            why = "been closed" if self._is_closed else "not started"
            why = f"ended ({episode.stop_reason})" if self.ended else why
            raise EpisodeOverError(f"the episode takes no turn: it has {why}")
        turns = len(episode.turns)
        try:
            await self._go_on(answer)
            if self._is_lost():
                await self._repair(answer, turns)
        except BaseException as error:
            await self._break_off(error)
            raise
        finally:
            episode.seconds = self._clock.seconds
        if episode.total_reward is None:
            raise error_of(episode)

    async def _go_on(self, answer: Any) -> None:
        """Play until the next turn is wanted, or the episode is over."""
        game = self._game
        assert game is not None  # noqa: S101 - the callers looked
        if not await advance(game, self._env, answer):
            await self._env.leave()

    def _is_lost(self) -> bool:
        episode = self.episode
        return episode.total_reward is None and episode.error_kind in OUTAGES

    async def _repair(self, answer: Any, turns: int) -> None:
        """Play the first turns again on a new session, and then the one that was lost.

        What the model has read must not change. If it would, the outage stays.
        """
        episode, past = self.episode, copy.copy(self.episode)
        try:
            while self._is_lost() and self._begin_again():
                while not await self._try_to_open():
                    pass
                if difference := await self._repeat(past, turns):
                    vars(episode).update(vars(past))
                    episode.error += (
                        "; it cannot be played again, because the environment does not "
                        f"answer as before: {difference}"
                    )
                    await self._env.leave()
                    return
                if not self._is_lost():
                    # The same, with the ids and times that are known already.
                    steps = [step for step in past.steps if step.turn < turns]
                    episode.turns, episode.steps = past.turns[:turns], steps
                    await self._go_on(answer)
        finally:
            if self._is_lost():
                episode.turns, episode.steps = past.turns, past.steps

    async def _repeat(self, past: Episode, turns: int) -> Difference | None:
        """Play turns again until one differs, or an outage ends it once more."""
        episode = self.episode
        if episode.prompt != past.prompt:
            return Difference(-1, "prompt", past.prompt, episode.prompt)
        before = [step for step in past.steps if step.turn < turns]
        await self._go_on(None)
        for turn in repeated_turns(past, len(before)):
            if not self.ended:
                await self._go_on(turn)
        if self._is_lost():
            return None
        return compare_steps(before, episode.steps)[0]

    async def _break_off(self, error: BaseException) -> None:
        """End an episode whose policy or turn was cancelled or raised."""
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

    def collect_reward(self) -> float:
        """Return what the episode's reward has grown by since this was last asked.

        For frameworks that take a reward for each turn. Asked after each turn and once
        more after `stop`, the parts add up to the episode's reward, whatever
        ``reward_reduction`` is.
        """
        before, self._collected = self._collected, self.episode.total_reward or 0.0
        return self._collected - before

    async def close(self) -> None:
        """Delete the session, in bounded time. Closing twice is fine."""
        self._is_closed = True
        if self._game is not None:
            self._game.close()
        await self._env.close()

    def discard(self) -> None:
        """Close it without waiting: the background deletes the session."""
        self._is_closed = True
        if self._game is not None:
            self._game.close()
        self._env.discard()
