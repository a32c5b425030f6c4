"""Plays the episodes of an evaluation, several at once, and judges them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ors_gym.client import AsyncORSClient
from ors_gym.evaluation.pace import Pace
from ors_gym.evaluation.plan import Planned
from ors_gym.evaluation.records import Record, Success, is_success
from ors_gym.protocol.retries import Retry
from ors_gym.rollout import Episode, Policy, Rules
from ors_gym.rollout.driving import Seat
from ors_gym.rollout.task_env import TaskEnv

__all__ = ["Player", "Settings"]


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
        env_arguments: Arguments of `ORSEnv`.
    """

    env_name: str
    make_policy: Callable[[], Policy]
    rules: Rules
    max_concurrent: int
    seed: int | None
    success: Success
    env_arguments: Mapping[str, Any]


class Player:
    """Plays episodes over one client, on one event loop.

    Args:
        client: The client.
        settings: How.
    """

    def __init__(self, client: AsyncORSClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._pace = Pace(settings.max_concurrent)
        self._free: list[Seat] = []
        self._told = client.link.wire.on_retry
        client.link.wire.on_retry = self._on_retry

    async def aclose(self) -> None:
        """Let go of the client; no episode may be under way."""
        self._client.link.wire.on_retry = self._told
        while self._free:
            await self._free.pop().close()

    def _on_retry(self, retry: Retry) -> None:
        self._pace.note(retry)
        self._told(retry)

    async def play(self, planned: Planned) -> Record:
        """Play an episode, as soon as the server bears one more.

        Args:
            planned: Which.

        Returns:
            What came of it, also where it failed.
        """
        await self._pace.begin()
        seat = self._free.pop() if self._free else self._new_seat()
        try:
            return await self._play(seat, planned)
        finally:
            self._free.append(seat)
            self._pace.end()

    def _new_seat(self) -> Seat:
        settings = self._settings
        env = TaskEnv(self._client, settings.env_name, **settings.env_arguments)
        return Seat(env, settings.rules)

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
