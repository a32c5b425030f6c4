"""Plays one episode after another over one client: opens, asks, steps and leaves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Self

from ors_gym.client import AsyncORSClient, AsyncSession
from ors_gym.env import AsyncTaskEnv
from ors_gym.env._open_for_task import Opening
from ors_gym.env._task_order import Task
from ors_gym.errors import AuthenticationError, InvalidRequestError, ORSError
from ors_gym.rollout._episode import Episode, Stop, Turn
from ors_gym.rollout._episode_rules import Rules
from ors_gym.rollout._limits import RUN_LIMIT, Spending
from ors_gym.rollout._policies import Policy, PolicyCaller
from ors_gym.rollout._turn_by_turn import (
    Clock,
    Game,
    PlannedAction,
    TurnReader,
    play,
    resume,
)

_ARGUMENTS_OF_ROLLOUTS: Final = frozenset(
    {"base_url", "on_error", "plain_text", "prefetch", "render_mode"}
)
"""Arguments of an env that every rollout sets itself."""


class Turns:
    """Which turns may be played now, and with which version of the weights.

    While it is paused, no policy is asked. Those that were asked before go on.
    """

    def __init__(self, version: Callable[[], Any] | None = None) -> None:
        self._version = version
        self._asked = 0
        self._open: asyncio.Future[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        self.follow: Callable[[bool], Awaitable[None]] | None = None
        """Told of a pause and of its end, where turns are played elsewhere too."""

    @property
    def paused(self) -> bool:
        return self._open is not None

    def pause(self) -> asyncio.Future[Any]:
        """Hold every further turn; the future is done once none is played."""
        idle = self._pause()
        return idle if self.follow is None else asyncio.gather(idle, self.follow(True))

    def _pause(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if self._open is None:
            self._open = loop.create_future()
        idle: asyncio.Future[None] = loop.create_future()
        if self._asked:
            self._idle.append(idle)
        else:
            idle.set_result(None)
        return idle

    def resume(self) -> asyncio.Future[Any] | None:
        """Let turns be played; a future is done once it is so elsewhere, too."""
        if self._open is not None:
            self._open.set_result(None)
            self._open = None
        return (
            None if self.follow is None else asyncio.ensure_future(self.follow(False))
        )

    async def hold(self) -> None:
        """Wait while it is paused."""
        while self._open is not None:
            await asyncio.shield(self._open)

    async def ask_version(self) -> Any:
        if self._version is None:
            return None
        version = self._version()
        return await version if inspect.isawaitable(version) else version

    async def ask(self, caller: PolicyCaller, policy: Policy, episode: Episode) -> Any:
        """Ask a policy; the version is in the turn that it returns."""
        self._asked += 1
        try:
            version = await self.ask_version()
            answer = await caller.call(policy, episode)
        finally:
            self._asked -= 1
            while self._idle and not self._asked:
                idle = self._idle.pop()
                if not idle.done():
                    idle.set_result(None)
        if version is None or answer is None or isinstance(answer, Stop):
            return answer
        turn = answer if isinstance(answer, Turn) else Turn(answer)
        return turn if turn.version is not None else replace(turn, version=version)


class EpisodePlayer:
    """Plays one episode after another, in one env and with one thread for policies."""

    def __init__(
        self,
        client: AsyncORSClient,
        env_name: str,
        rules: Rules,
        env_arguments: Mapping[str, Any],
        turns: Turns | None = None,
    ) -> None:
        self.env = make_rollout_env(client, env_name, **env_arguments)
        self._rules = rules
        self._turns = turns
        self._timeout: asyncio.Timeout | None = None
        """That of the episode under way, set-up to last step."""
        self._was_stopped = False
        self._caller = PolicyCaller()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def play(
        self,
        episode: Episode,
        task: Task,
        policy: Policy,
        spending: Spending | None = None,
    ) -> None:
        """Play an episode and fill it in. Its session is deleted, whatever happens.

        Outages are recorded. A mistake of the caller, and what the policy raised, is
        recorded and raised. ``spending`` is asked before each turn, and counts it.
        """
        clock = Clock()
        self._was_stopped = False
        deadline = self._rules.deadline
        self._caller.begin_episode()
        try:
            async with asyncio.timeout(deadline) as self._timeout:
                await self._play(episode, task, policy, clock, spending)
        except TimeoutError as error:
            if self._was_stopped and spending is not None:
                if episode.stop_reason == "":
                    episode.end_without_outcome(spending.stopped, RUN_LIMIT)
            elif deadline is None or clock.seconds < deadline:
                # It is not ours, but the policy's own.
                _blame_policy(episode, error)
                raise
            elif episode.stop_reason == "":
                self._rules.conclude(episode, "deadline")
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _blame_policy(episode, error)
            raise
        finally:
            self._timeout = None
            episode.seconds = clock.seconds
            try:
                await self.env.leave()
            finally:
                await self._caller.end(policy, episode)

    def stop(self) -> None:
        """End the episode under way now: a limit of the run is reached."""
        limit = self._timeout
        if limit is not None and not limit.expired():
            self._was_stopped = True
            limit.reschedule(asyncio.get_running_loop().time())

    async def _hold(self, turns: Turns, clock: Clock) -> None:
        """Wait while no turn may be played, and put the deadline off by that."""
        limit = self._timeout
        assert limit is not None  # noqa: S101 - an episode is under way
        since, until = clock.seconds, limit.when()
        limit.reschedule(None)
        await turns.hold()
        held = clock.seconds - since
        clock.hold_up(held)
        if until is not None:
            limit.reschedule(until + held)

    async def _play(
        self,
        episode: Episode,
        task: Task,
        policy: Policy,
        clock: Clock,
        spending: Spending | None,
    ) -> None:
        env, turns = self.env, self._turns
        try:
            game = await start_game(episode, env, task, self._rules, clock)
        except ORSError as error:
            episode.fail(error, error.kind)
            if isinstance(error, InvalidRequestError | AuthenticationError):
                # The caller's mistake, whatever the task.
                raise
            return
        try:
            asked = await advance(game, env, None)
            while asked:
                # Do not wait for the pause if this episode was stopped: it is cancelled
                # in a moment.
                if turns is not None and turns.paused and not self._was_stopped:
                    await self._hold(turns, clock)
                if spending is not None and spending.stopped:
                    episode.end_without_outcome(spending.stopped, RUN_LIMIT)
                    break
                if turns is None:
                    answer = await self._caller.call(policy, episode)
                else:
                    answer = await turns.ask(self._caller, policy, episode)
                if spending is not None:
                    # Before its calls are run: other episodes' turns begin meanwhile.
                    spending.add_turn(answer)
                asked = await advance(game, env, answer)
        finally:
            game.close()

    async def close(self) -> None:
        """Close the env, and let the thread end as soon as its function returns."""
        self._caller.close()
        await self.env.close()


def _blame_policy(episode: Episode, error: BaseException) -> None:
    """End an episode by what its policy raised, if it has not ended yet."""
    if episode.stop_reason == "":
        text, name = str(error), type(error).__name__
        episode.end_without_outcome(f"{name}: {text}" if text else name, "policy")
        episode.cause = error


async def start_game(
    episode: Episode,
    env: AsyncTaskEnv,
    task: Task | Opening[AsyncSession],
    rules: Rules,
    clock: Clock,
) -> Game:
    """Open the session of an episode, and fill in what the episode begins with."""
    try:
        episode.observation, info = await env.open(task)
    finally:
        episode.setup_seconds = clock.seconds
    episode.environment = env.environment
    episode.set_prompt(info["blocks"], env.conversation)
    episode.tools = list(env.tools)
    reader = TurnReader(env.tools, rules.on_plain_text)
    return play(episode, rules, reader, clock)


async def advance(game: Game, env: AsyncTaskEnv, answer: Any) -> bool:
    """Play until the policy is to be asked (True), or the episode is over.

    ``answer`` is what the policy returned; None at the beginning.
    """
    request = resume(game, answer)
    while isinstance(request, PlannedAction):
        try:
            result = await env.step(request.action)
        except ORSError as error:
            request = resume(game, error=error)
        else:
            request = resume(game, result)
    return request is not None


def make_rollout_env(
    client: AsyncORSClient | str | None, env_name: str, **arguments: Any
) -> AsyncTaskEnv:
    """Make the env of a rollout: an outage ends an episode, and does not raise.

    For an address, or None, it has a client of its own.
    """
    for name in _ARGUMENTS_OF_ROLLOUTS:
        if name in arguments:
            raise InvalidRequestError(f"a rollout does not take {name}=")
    if client is None or isinstance(client, str):
        arguments["base_url"] = client
    else:
        arguments["client"] = client
    try:
        return AsyncTaskEnv(env_name, on_error="truncate", **arguments)
    except TypeError as error:
        raise InvalidRequestError(f"unknown argument: {error}") from None
