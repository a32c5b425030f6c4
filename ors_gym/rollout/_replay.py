"""Play an episode again, to see whether the environment does the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ors_gym._shown_text import clean
from ors_gym.client.background import run_and_wait
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._redaction import takes_secrets
from ors_gym.rollout._clients import AnyClient, borrow_async, split_connection
from ors_gym.rollout._episode import Episode, Step, Turn, turns_with_steps
from ors_gym.rollout._player import EpisodePlayer
from ors_gym.rollout._rules import OUTAGES, Rules

_COMPARED = ("blocks", "reward", "reward_is_null", "finished", "error", "metadata")
_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first difference between an episode and its replay.

    Args:
        step: The number of the step, from 0; -1 for the prompt and the set-up.
        what: ``set-up``, ``prompt``, a field of the step, or ``steps`` for their
            number.
        before: The value in the episode.
        now: The value in the replay.
    """

    step: int
    what: str
    before: Any
    now: Any

    def __str__(self) -> str:
        where = f"step {self.step}: " if self.step >= 0 else ""
        before, now = (f"{value!r:.{_SHOWN}}" for value in (self.before, self.now))
        return f"{where}{self.what} was {before}, is now {now}"


@dataclasses.dataclass(frozen=True)
class Replay:
    """The result of playing an episode again.

    Args:
        episode: The new episode.
        difference: The first difference, or None if there is none.
        error: Why it could not be replayed to its end, such as a server that is gone;
            ``""`` if it was. It says nothing of the environment.
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
        InvalidRequestError: If the task is not known, or nothing was played on it.
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
    """
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
        wanted = Task(episode.split, -1, dict(task))
    else:
        wanted = Task(episode.split, episode.task_index)
    turns = _repeated_turns(episode)
    # Compared where the episode has it.
    rules = Rules(keep_metadata=any(step.metadata for step in episode.steps))
    again = Episode(
        episode.environment, wanted.index, wanted.split, episode.number, episode.seed
    )

    async def policy(_: Episode) -> Turn | None:
        return next(turns, None)

    connection, env_arguments = split_connection(env_arguments)
    async with (
        borrow_async(client, connection, elsewhere=elsewhere) as own,
        EpisodePlayer(own, episode.environment, rules, env_arguments) as player,
    ):
        await player.play(again, wanted, policy)
    return Replay(again, *_compare(episode, again))


def _repeated_turns(episode: Episode) -> Iterator[Turn]:
    """Yield the turns, each with the actions that led to a step."""
    for turn, steps in turns_with_steps(episode):
        actions = [
            {"tool": step.tool, "input": step.input} if step.tool else kept
            for step, kept in zip(steps, turn.actions, strict=False)
        ]
        if actions:
            yield Turn(actions, turn.message, turn.extra)


def _compare(before: Episode, now: Episode) -> tuple[Difference | None, str]:
    """Return the first difference; and why the comparison ended early, or ``""``."""
    if now.stop_reason == "error" and not now.prompt:
        if now.error_kind in OUTAGES:
            return None, now.error
        same = before.error_kind == now.error_kind
        return None if same else Difference(-1, "set-up", "done", now.error), ""
    if before.prompt != now.prompt:
        return Difference(-1, "prompt", before.prompt, now.prompt), ""
    return _compare_steps(before, now)


def _compare_steps(before: Episode, now: Episode) -> tuple[Difference | None, str]:
    for number, (old, new) in enumerate(zip(before.steps, now.steps, strict=False)):
        if old.error_kind in OUTAGES:
            # Nobody knows what it would have been.
            return None, ""
        if new.error_kind in OUTAGES:
            return None, f"step {number}: {new.error}"
        for name in _COMPARED:
            was, is_now = _value(old, name), _value(new, name)
            if was != is_now:
                return Difference(number, name, was, is_now), ""
    if len(before.steps) != len(now.steps):
        counts = len(before.steps), len(now.steps)
        return Difference(min(counts), "steps", *counts), ""
    return None, ""


def _value(step: Step, name: str) -> Any:
    # The error of an unreadable action is our own words, not the server's.
    if name == "error" and step.error_kind == "invalid_action" and not step.tool:
        return ""
    return getattr(step, name)
