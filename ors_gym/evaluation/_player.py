"""Plays the episodes of an evaluation over one client, and judges their success."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ors_gym.client import AsyncORSClient
from ors_gym.evaluation._output import Record
from ors_gym.evaluation._plan import Planned
from ors_gym.protocol._retries import Retry
from ors_gym.rollout import Episode, Policy, Rules
from ors_gym.rollout._run import EpisodePlayer

Success: TypeAlias = float | Callable[[Episode], bool] | None
"""The least reward of a success, or a function that judges the episode; None for
finished with a reward above 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the episodes of an evaluation are played."""

    env_name: str
    make_policy: Callable[[], Policy]
    rules: Rules
    max_concurrent: int
    seed: int | None  # ``episode.seed`` is this plus the episode's number
    success: Success
    env_arguments: Mapping[str, Any]


class Player:
    """Plays episodes over one client, on one event loop."""

    def __init__(self, client: AsyncORSClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._pace = Pace(settings.max_concurrent)
        self._free: list[EpisodePlayer] = []
        self._unsubscribe = client.subscribe_to_retries(self._pace.note)

    async def aclose(self) -> None:
        """Let go of the client; no episode may be under way."""
        self._unsubscribe()
        while self._free:
            await self._free.pop().close()

    async def play(self, planned: Planned) -> Record:
        """Play an episode as soon as the pace allows one more; failures are records.

        So is what is to end the run, such as a SystemExit of the policy: the record's
        ``episode.cause``.
        """
        settings = self._settings
        await self._pace.begin()
        if self._free:
            player = self._free.pop()
        else:
            player = EpisodePlayer(
                self._client, settings.env_name, settings.rules, settings.env_arguments
            )
        try:
            return await self._play(player, planned)
        finally:
            self._free.append(player)
            self._pace.end()

    async def _play(self, player: EpisodePlayer, planned: Planned) -> Record:
        settings, task = self._settings, planned.task
        seed = None if settings.seed is None else settings.seed + planned.number
        episode = Episode(
            settings.env_name, task.index, task.split, planned.number, seed
        )
        try:
            await player.play(episode, task, settings.make_policy())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the collector raises what ends the run
            if episode.stop_reason != "error":
                episode.fail(error, "policy")
        success = None
        try:
            success = _is_success(settings.success, episode)
        except Exception as error:  # noqa: BLE001 - the episode is lost, not the run
            episode.fail(error, "success")
        return Record(episode, success, task.spec)


class Pace:
    """The number of episodes at once: halved where the server says 429, then raised.

    Additive increase and multiplicative decrease, as TCP does it (RFC 5681, section
    3.1). After it was halved, ``limit`` episodes have to end before it is halved again
    or rises. From then on it rises by one for every ``limit`` episodes that end.
    """

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._under_way = 0
        self._to_end_first = 0
        self._changed = asyncio.Event()

    def note(self, retry: Retry) -> None:
        if "429" in retry.reason and self._to_end_first <= 0:
            self.limit = max(1.0, self.limit / 2)
            self._to_end_first = int(self.limit)

    async def begin(self) -> None:
        """Wait until one more episode may be played, and count it."""
        while self._under_way >= int(self.limit):
            self._changed.clear()
            await self._changed.wait()
        self._under_way += 1

    def end(self) -> None:
        self._under_way -= 1
        self._to_end_first -= 1
        if self._to_end_first <= 0 and self.limit < self._most:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._changed.set()


def _is_success(success: Success, episode: Episode) -> bool | None:
    """Judge an episode; None if it has no outcome."""
    if episode.total_reward is None:
        return None
    if success is None:
        return episode.finished and episode.total_reward > 0
    if callable(success):
        return bool(success(episode))
    return episode.total_reward >= success


def name_success(success: Success) -> str:
    """Describe how success is judged, for the head of an output file."""
    if success is None:
        return "finished and total_reward > 0"
    if callable(success):
        return str(getattr(success, "__qualname__", type(success).__qualname__))
    return f"total_reward >= {float(success):g}"
