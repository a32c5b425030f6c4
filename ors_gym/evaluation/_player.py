"""How many episodes are played at once: fewer where the server says 429."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ors_gym.client import AsyncORSClient
from ors_gym.evaluation._plan import Planned
from ors_gym.evaluation._record import Record, Success, is_success
from ors_gym.protocol._retries import Retry
from ors_gym.rollout import Episode, Policy, Rules
from ors_gym.rollout._driver import Seat, make_rollout_env

__all__ = ["Pace", "Player", "Settings"]


class Pace:
    """A limit that halves when the server is asked too much, and grows back slowly.

    Additive increase and multiplicative decrease, as TCP does it (RFC 5681, section
    3.1): halved at most once until as many episodes have ended as are under way, and
    then raised by one for that many.

    Args:
        most: How many episodes at once at most.

    Example:
        >>> pace = Pace(8)
        >>> pace.note(Retry("POST /create", "status 429", 1, 0.1))
        >>> pace.limit
        4.0
    """

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._under_way = 0
        self._to_end_first = 0
        self._changed = asyncio.Event()

    def note(self, retry: Retry) -> None:
        """Take note of a request that has to be repeated.

        Args:
            retry: Which, and why.
        """
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
        """Take note that an episode ended."""
        self._under_way -= 1
        self._to_end_first -= 1
        if self._to_end_first <= 0 and self.limit < self._most:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._changed.set()


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
        self._unsubscribe = client.subscribe_to_retries(self._pace.note)

    async def aclose(self) -> None:
        """Let go of the client; no episode may be under way."""
        self._unsubscribe()
        while self._free:
            await self._free.pop().close()

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
        env = make_rollout_env(
            self._client, settings.env_name, **settings.env_arguments
        )
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
