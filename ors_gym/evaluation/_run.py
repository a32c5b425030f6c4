"""An evaluation under way: what is left, what ended, and whether to go on."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
)
from ors_gym.evaluation._output import Output, Record
from ors_gym.evaluation._plan import Key, Plan, Planned
from ors_gym.evaluation._player import Player, Settings
from ors_gym.evaluation._progress import Progress
from ors_gym.rollout import Episode

__all__ = ["Run", "play_here"]

_GIVE_UP_AFTER: Final = 2
"""Times ``max_concurrent``: so many episodes in a row that found no server, or were
forbidden."""


class Run:
    """Keeps what came of the episodes of a plan.

    Args:
        plan: Which episodes.
        max_concurrent: How many are played at once at most.
        output: Where each is written to, if anywhere.
        progress: Counts them.
        done: The episodes that are there already.
        on_episode: Called with each episode that ended.
    """

    def __init__(
        self,
        plan: Plan,
        max_concurrent: int,
        *,
        output: Output | None,
        progress: Progress,
        done: Mapping[Key, Record],
        on_episode: Callable[[Episode], Any] | None,
    ) -> None:
        self.records: dict[Key, Record] = {
            one.key: done[one.key] for one in plan if one.key in done
        }
        """The episodes that ended so far."""
        self.stopped = ""
        """Why episodes are missing, if some are."""
        self.refused: ORSError | None = None
        """What makes every further episode fail in the same way."""
        self.left: Iterator[Planned] = (one for one in plan if one.key not in done)
        """The episodes that are still to be played."""
        self._output = output
        self._progress = progress
        self._on_episode = on_episode
        self._patience = _GIVE_UP_AFTER * max_concurrent
        self._unreachable = self._forbidden = 0
        for record in self.records.values():
            progress.add(record, done_before=True)

    def next(self) -> Planned | None:
        """Return the next episode to be played, or None to play no more."""
        return None if self.stopped else next(self.left, None)

    async def keep(self, planned: Planned, record: Record) -> None:
        """Write an episode down and tell of it.

        Args:
            planned: Which.
            record: What came of it.

        Raises:
            Exception: What ``on_episode`` raises, or writing the output.
        """
        self.records[planned.key] = record
        self._judge(record.episode)
        if self._output is not None:
            self._output.append(record)
            if self._output.is_due:
                await asyncio.to_thread(self._output.sync)
        self._progress.add(record)
        if self._on_episode is not None:
            told = self._on_episode(record.episode)
            if inspect.isawaitable(told):
                await told

    def raise_if_refused(self) -> None:
        """Raise what made every episode fail.

        With outcomes there is something to show: then it is only why it stopped.

        Raises:
            ORSError: If no episode has an outcome, and a key or a model is wrong.
        """
        outcomes = any(record.has_outcome for record in self.records.values())
        if self.refused is not None and not outcomes:
            raise self.refused

    def _judge(self, episode: Episode) -> None:
        """Stop where each further episode would fail in vain."""
        lost = episode.error_kind == ConnectionFailedError.kind and not episode.prompt
        self._unreachable = self._unreachable + 1 if lost else 0
        if self._unreachable >= self._patience:
            self.stopped = f"the server could not be reached: {episode.error}"
        cause = episode.cause
        forbidden = isinstance(cause, AuthenticationError)
        self._forbidden = self._forbidden + 1 if forbidden else 0
        if isinstance(cause, ORSError) and (
            _is_final(cause, episode.error_kind) or self._forbidden >= self._patience
        ):
            self.refused = self.refused or cause
            self.stopped = self.stopped or str(cause)


def _is_final(error: ORSError, kind: str) -> bool:
    """Say whether no episode can do better: a wrong key, or no such model.

    A 403 may be about one conversation, as gateways filter what is said, and a 400 too;
    the environment's own 404 may be about one task.
    """
    if isinstance(error, AuthenticationError):
        return error.status in (0, 401)
    is_refusal = isinstance(error, InvalidRequestError) and error.status == 404
    return is_refusal and kind == "policy"


async def play_here(run: Run, client: AsyncORSClient, settings: Settings) -> None:
    """Play all that is left of an evaluation on this event loop.

    Args:
        run: The evaluation.
        client: The client.
        settings: How.

    Raises:
        Exception: What ``on_episode`` raises, or writing the output.
    """
    async with contextlib.aclosing(Player(client, settings)) as player:

        async def work() -> None:
            while (planned := run.next()) is not None:
                await run.keep(planned, await player.play(planned))

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(settings.max_concurrent):
                    workers.create_task(work())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
