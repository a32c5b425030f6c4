"""Play an episode again: all of it to compare, or its beginning to go on from there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Self

from ors_gym._shown_text import clean
from ors_gym.client.background import run_and_wait
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError, ReplayDiffersError
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._clients import AnyClient, borrow_async, split_client_arguments
from ors_gym.rollout._differences import Difference, compare_steps, repeated_turns
from ors_gym.rollout._episode import (
    Episode,
    Step,
    Turn,
    is_recorded_call,
    reaches_server,
    turns_with_steps,
)
from ors_gym.rollout._episode_rules import OUTAGES, Rules, take_rules
from ors_gym.rollout._live_episode import LiveEpisode
from ors_gym.rollout._player import EpisodePlayer
from ors_gym.rollout._policies import Policy
from ors_gym.types import JSONObject

_SHOWN: Final = 100


@dataclasses.dataclass(frozen=True)
class Replay:
    """The result of playing an episode again.

    Args:
        episode: The new episode.
        difference: The first difference, or None if there is none.
        error: Why it could not be replayed to its end, such as a server that is gone;
            ``""`` if it was. It says nothing of the environment.

    Example:
        >>> print(Replay(Episode("math", 3, "train"), None))
        the same: the prompt and 0 steps
    """

    episode: Episode
    difference: Difference | None
    error: str = ""

    @property
    def same(self) -> bool:
        """Whether all of it was played again, and was the same."""
        return self.difference is None and not self.error

    def __str__(self) -> str:
        if self.error:
            return clean(f"could not be replayed: {self.error}")
        if self.difference is None:
            steps = len(self.episode.steps)
            return f"the same: the prompt and {steps} step{'s' * (steps != 1)}"
        return f"different: {self.difference}"


@takes_secrets
def replay(
    client: AnyClient,
    episode: Episode,
    *,
    task: Mapping[str, Any] | None = None,
    **env_arguments: Any,
) -> Replay:
    """Send an episode's actions again and compare what comes back.

    Args:
        client: A client or a server's address; its connections are not used.
        episode: The episode.
        task: The task itself, where the episode has no index.
        **env_arguments: The arguments of `ORSEnv` that the episode was played with.

    Returns:
        The new episode, and the first difference from the old one.

    Raises:
        InvalidRequestError: If the task is not known, or nothing was played on it, or
            it was played through a wrapper, whose calls are not recorded.
        ORSError: If the environment, the task or a key is refused. An outage is no
            exception but ``Replay.error``.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import random_policy, run_episode_async
        >>> play = run_episode_async(None, "math", 3, random_policy(0), max_turns=1)
        >>> print(replay(None, asyncio.run(play)))
        the same: the prompt and 1 step
    """
    return run_and_wait(
        replay_async(client, episode, task=task, elsewhere=True, **env_arguments)
    )


@takes_secrets
async def replay_async(
    client: AnyClient,
    episode: Episode,
    *,
    task: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    **env_arguments: Any,
) -> Replay:
    """Do what `replay` does on the running event loop, with the same arguments.

    Args:
        client: As for `replay`.
        episode: As for `replay`.
        task: As for `replay`.
        elsewhere: Whether an async client belongs to another event loop.
        **env_arguments: As for `replay`.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import random_policy, run_episode_async
        >>> async def play_twice():
        ...     policy = random_policy(0)
        ...     episode = await run_episode_async(None, "math", 3, policy, max_turns=1)
        ...     return await replay_async(None, episode)
        >>> asyncio.run(play_twice()).same
        True
    """
    wanted = _find_task(episode, task)
    _check_calls(episode, len(episode.steps))
    turns = repeated_turns(episode)
    rules = Rules(keep_metadata=_has_metadata(episode))
    again = Episode(
        episode.environment, wanted.index, wanted.split, episode.number, episode.seed
    )

    async def policy(_: Episode) -> Turn | None:
        return next(turns, None)

    connection, env_arguments = split_client_arguments(env_arguments)
    async with (
        borrow_async(client, connection, elsewhere=elsewhere) as own,
        EpisodePlayer(own, episode.environment, rules, env_arguments) as player,
    ):
        await player.play(again, wanted, policy)
    return Replay(again, *_compare(episode, again))


@takes_secrets
def revive(
    episode: Episode,
    step: int,
    *,
    client: AnyClient = None,
    task: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> RevivedEpisode:
    """Play the first actions of an episode again, to go on from there.

    Each reply has to be what it was. The session is open afterwards: try another
    action, let a policy play on, and revive the same step again for the next branch.

    Args:
        episode: The episode.
        step: How many of its actions are played; 0 for the prompt alone.
        client: A client or a server's address; its connections are not used.
        task: The task itself, where the episode has no index.
        **arguments: ``rules``, or the arguments of `Rules`; and the arguments of
            `ORSEnv` that the episode was played with.

    Returns:
        The episode so far, to be closed by the caller. It is a context manager.

    Raises:
        ReplayDiffersError: If the environment does not answer as before. It names the
            first difference, and the session is deleted.
        InvalidRequestError: If the episode has no such step, or was over before it; or
            if the task is not known; or if the steps were played through a wrapper,
            whose calls are not recorded.
        ORSError: If the server, the environment or the task is gone.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import reference_policy, run_episode_async
        >>> def low(episode):
        ...     return {"tool": "guess", "input": {"number": 1}}
        >>> play = run_episode_async(None, "guess", 3, low, max_turns=3)
        >>> episode = asyncio.run(play)
        >>> with revive(episode, step=2) as again:
        ...     again.play(reference_policy()).stop_reason
        'finished'
    """
    return RevivedEpisode(
        revive_async(
            episode, step, client=client, task=task, elsewhere=True, **arguments
        )
    )


@takes_secrets
@contextlib.asynccontextmanager
async def revive_async(
    episode: Episode,
    step: int,
    *,
    client: AnyClient = None,
    task: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    rules: Rules | None = None,
    **arguments: Any,
) -> AsyncIterator[LiveEpisode]:
    """Do what `revive` does on the running event loop, as an async context manager.

    Many branches can be open at once, also of one client.

    Args:
        episode: As for `revive`.
        step: As for `revive`.
        client: As for `revive`, but an async client's connections are used.
        task: As for `revive`.
        elsewhere: Whether an async client belongs to another event loop.
        rules: When it ends, in place of keyword arguments for that.
        **arguments: As for `revive`.

    Yields:
        The `LiveEpisode`, which takes the next turn. It is closed at the end.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import reference_policy, run_episode_async
        >>> async def branch():
        ...     def low(_):
        ...         return {"tool": "guess", "input": {"number": 1}}
        ...     first = await run_episode_async(None, "guess", 3, low, max_turns=3)
        ...     async with revive_async(first, step=2) as live:
        ...         return await live.play(reference_policy())
        >>> asyncio.run(branch()).stop_reason
        'finished'
    """
    before = _first_steps(episode, step)
    wanted = _find_task(episode, task)
    _check_calls(episode, step)
    connection, arguments = split_client_arguments(arguments)
    rules = rules or take_rules(arguments)
    if _has_metadata(episode):
        rules = dataclasses.replace(rules, keep_metadata=True)
    async with (
        borrow_async(client, connection, elsewhere=elsewhere) as own,
        LiveEpisode(
            own,
            episode.environment,
            wanted.index if wanted.spec is None else wanted.spec,
            split=wanted.split,
            number=episode.number,
            rules=rules,
            **arguments,
        ) as live,
    ):
        now = live.episode
        now.seed = episode.seed
        await live.start()
        if episode.prompt != now.prompt:
            _raise_if_different(Difference(-1, "prompt", episode.prompt, now.prompt))
        for turn in repeated_turns(episode, step):
            if not live.ended:
                await live.step(turn)
                _raise_if_different(
                    compare_steps(before[: len(now.steps)], now.steps)[0]
                )
        _raise_if_different(compare_steps(before, now.steps)[0])
        yield live


class RevivedEpisode:
    """An episode that goes on from a step of another, for code without an event loop.

    Args:
        opening: What `revive_async` returned.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import run_episode_async
        >>> low = {"tool": "guess", "input": {"number": 1}}
        >>> play = run_episode_async(None, "guess", 3, lambda _: low, max_turns=3)
        >>> with revive(asyncio.run(play), step=1) as again:
        ...     reply = again.take(low)
        ...     len(again.episode.steps)
        2
    """

    def __init__(self, opening: AbstractAsyncContextManager[LiveEpisode]) -> None:
        self._stack = AsyncExitStack()
        self._live = run_and_wait(self._stack.enter_async_context(opening))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def episode(self) -> Episode:
        """What happened so far, the steps that were played again among it."""
        return self._live.episode

    @property
    def ended(self) -> bool:
        """Whether no further turn is taken."""
        return self._live.ended

    def take(self, answer: Any) -> list[JSONObject]:
        """Play one turn, and return the messages that answer it; see `LiveEpisode`.

        Args:
            answer: As for ``LiveEpisode.take``.
        """
        return run_and_wait(self._live.take(answer))

    def play(self, policy: Policy) -> Episode:
        """Let a policy play on to the end, and return the episode.

        Args:
            policy: As for ``LiveEpisode.play``.
        """
        return run_and_wait(self._live.play(policy))

    def close(self) -> None:
        """Delete the session. Closing twice is fine."""
        run_and_wait(self._stack.aclose())


def _find_task(episode: Episode, task: Mapping[str, Any] | None) -> Task:
    """Return the task of an episode of which something was played."""
    if task is None and episode.task_index < 0:
        raise InvalidRequestError(
            "the episode was played on a task without an index; pass it as task="
        )
    if episode.error_kind in OUTAGES and not episode.prompt:
        raise InvalidRequestError(
            f"nothing was played in this episode, so nothing can be compared: "
            f"{episode.error}"
        )
    if task is not None:
        return Task(episode.split, -1, dict(task))
    return Task(episode.split, episode.task_index)


def _check_calls(episode: Episode, count: int) -> None:
    """Refuse an episode whose first steps came of calls that nobody recorded.

    Of a wrapped env the actions of the policy are recorded, not the wrapper's calls.
    """
    number = 0
    for turn, steps in turns_with_steps(episode):
        for step, action in zip(steps, turn.actions, strict=False):
            if number == count:
                return
            is_raw = bool(step.tool) or reaches_server(action)
            if is_raw and not is_recorded_call(action):
                raise InvalidRequestError(
                    f"step {number} of the episode came of the action "
                    f"{action!r:.{_SHOWN}}, which is no tool call: it was played "
                    "through a wrapper, whose calls are not recorded. Play the "
                    "wrapped env again from its seed instead, or let the policy "
                    "return tool calls"
                )
            number += 1


def _has_metadata(episode: Episode) -> bool:
    """Say whether the metadata of steps was kept, so that it is compared."""
    return any(step.metadata for step in episode.steps)


def _first_steps(episode: Episode, count: int) -> Sequence[Step]:
    """Return the steps to be played again, after which the episode has to go on."""
    if not 0 <= count <= len(episode.steps):
        raise InvalidRequestError(
            f"step is {count}, but the episode has {len(episode.steps)} steps; 0 is "
            "the prompt alone"
        )
    for number, step in enumerate(episode.steps[:count]):
        if step.finished or step.truncated:
            why = step.error or "finished" * step.finished or "truncated"
            raise InvalidRequestError(
                f"the episode ended with step {number} ({why}), so nothing goes on "
                f"after it; pass step={number}, or less"
            )
    return episode.steps[:count]


def _raise_if_different(difference: Difference | None) -> None:
    if difference is not None:
        raise ReplayDiffersError(
            f"the environment does not answer as before: {difference}",
            step=difference.step,
            what=difference.what,
        )


def _compare(before: Episode, now: Episode) -> tuple[Difference | None, str]:
    """Return the first difference; and why the comparison ended early, or ``""``."""
    if now.stop_reason == "error" and not now.prompt:
        if now.error_kind in OUTAGES:
            return None, now.error
        same = before.error_kind == now.error_kind
        return None if same else Difference(-1, "set-up", "done", now.error), ""
    if before.prompt != now.prompt:
        return Difference(-1, "prompt", before.prompt, now.prompt), ""
    return compare_steps(before.steps, now.steps)
