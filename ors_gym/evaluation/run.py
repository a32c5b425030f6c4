"""The async core: many episodes at once, and what becomes of each."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import ConnectionFailedError
from ors_gym.evaluation.output import Output
from ors_gym.evaluation.pace import Pace
from ors_gym.evaluation.plan import Key, Plan, Planned
from ors_gym.evaluation.progress import Progress
from ors_gym.evaluation.records import Record, Success, is_success
from ors_gym.protocol.retries import Retry
from ors_gym.rollout import Episode, Policy, Rules
from ors_gym.rollout.driving import Seat
from ors_gym.rollout.task_env import TaskEnv

__all__ = ["Run", "Settings"]

_GIVE_UP_AFTER: Final = 2
"""Times ``max_concurrent``: so many episodes in a row that found no server."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the episodes of an evaluation are played.

    Args:
        env_name: The environment's name.
        make_policy: Gives the policy of each episode.
        rules: When episodes end.
        max_concurrent: How many are played at once at most.
        seed: Given to policies, with the number of the episode, as ``episode.seed``.
        success: When an episode is a success.
        on_episode: Called with each episode that ended.
        env_arguments: Arguments of `ORSEnv`.
    """

    env_name: str
    make_policy: Callable[[], Policy]
    rules: Rules
    max_concurrent: int
    seed: int | None
    success: Success
    on_episode: Callable[[Episode], Any] | None
    env_arguments: Mapping[str, Any]


class Run:
    """Plays what is missing of a plan.

    Args:
        client: The client.
        settings: How.
        plan: Which episodes.
        output: Where each is written to, if anywhere.
        progress: Counts them.
        done: The episodes that are there already.
    """

    def __init__(
        self,
        client: AsyncORSClient,
        settings: Settings,
        plan: Plan,
        *,
        output: Output | None,
        progress: Progress,
        done: Mapping[Key, Record],
    ) -> None:
        self.records: dict[Key, Record] = {
            one.key: done[one.key] for one in plan if one.key in done
        }
        """The episodes that ended so far."""
        self.stopped = ""
        """Why episodes are missing, if some are."""
        self._client = client
        self._settings = settings
        self._output = output
        self._progress = progress
        self._left = (one for one in plan if one.key not in done)
        self._pace = Pace(settings.max_concurrent)
        self._unreachable = 0
        for record in self.records.values():
            progress.add(record, done_before=True)

    async def play(self) -> None:
        """Play all that is left.

        Raises:
            Exception: What ``on_episode`` raises, or writing the output.
        """
        wire = self._client.link.wire
        told = wire.on_retry

        def on_retry(retry: Retry) -> None:
            self._pace.note(retry)
            told(retry)

        wire.on_retry = on_retry
        try:
            async with asyncio.TaskGroup() as workers:
                for number in range(self._settings.max_concurrent):
                    workers.create_task(self._work(number))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            wire.on_retry = told

    async def _work(self, number: int) -> None:
        """Play one episode after another."""
        settings = self._settings
        env = TaskEnv(self._client, settings.env_name, **settings.env_arguments)
        seat = Seat(env, settings.rules)
        try:
            await self._pace.wait(number)
            while (planned := self._next()) is not None:
                await self._keep(planned, await self._play(seat, planned))
                await self._pace.wait(number)
        finally:
            self._pace.release()
            await seat.close()

    def _next(self) -> Planned | None:
        return None if self.stopped else next(self._left, None)

    async def _play(self, seat: Seat, planned: Planned) -> Record:
        settings, task = self._settings, planned.task
        seed = None if settings.seed is None else settings.seed + planned.number
        episode = Episode(
            settings.env_name, task.index, task.split, planned.number, seed
        )
        try:
            await seat.play(episode, task, settings.make_policy())
        except Exception as error:  # noqa: BLE001 - one episode must not end the others
            if episode.stop_reason != "error":
                episode.fail(error, "policy")
        success = None
        try:
            success = is_success(settings.success, episode)
        except Exception as error:  # noqa: BLE001 - the episode is lost, not the run
            episode.fail(error, "success")
        return Record(episode, success, task.spec)

    async def _keep(self, planned: Planned, record: Record) -> None:
        """Write an episode down and tell of it."""
        self.records[planned.key] = record
        self._pace.episode_ended()
        self._note_reach(record.episode)
        if self._output is not None:
            self._output.append(record)
            if self._output.is_due:
                await asyncio.to_thread(self._output.sync)
        self._progress.add(record)
        if self._settings.on_episode is not None:
            told = self._settings.on_episode(record.episode)
            if inspect.isawaitable(told):
                await told

    def _note_reach(self, episode: Episode) -> None:
        """Stop where the server is gone: each further episode would wait in vain."""
        lost = episode.error_kind == ConnectionFailedError.kind and not episode.prompt
        self._unreachable = self._unreachable + 1 if lost else 0
        if self._unreachable >= _GIVE_UP_AFTER * self._settings.max_concurrent:
            self.stopped = f"the server could not be reached: {episode.error}"
