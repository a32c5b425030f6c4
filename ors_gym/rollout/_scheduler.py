"""The scheduler of rollouts: which are under way, and which are played again.

`evaluate`, `run_group` and `stream_groups` stand on it. It decides when a rollout may
begin, over which env it is played, whether it is played again, and what an error in one
means for the others. Its callers choose what is played next, and what becomes of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import completion_of
from ors_gym.errors import AuthenticationError, InvalidRequestError, ORSError
from ors_gym.rollout._concurrency import AdaptiveLimit, Gate
from ors_gym.rollout._episode import Attempt, Episode
from ors_gym.rollout._episode_rules import Rules
from ors_gym.rollout._limits import RUN_LIMIT, Budget, RunLimits
from ors_gym.rollout._output import Record, Success, is_success
from ors_gym.rollout._planned_rollout import Planned
from ors_gym.rollout._player import EpisodePlayer, Turns
from ors_gym.rollout._policies import Policy, check_seed
from ors_gym.types import JSONObject


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How rollouts are played."""

    env_name: str
    make_policy: Callable[[], Policy]
    rules: Rules
    max_concurrent: int
    min_concurrent: int = 1
    adapt_to_latency: bool = False
    seed: int | None = None  # ``episode.seed`` is this plus the episode's number
    success: Success = None
    limits: RunLimits = dataclasses.field(default_factory=RunLimits)
    env_arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.max_concurrent < 1:
            raise InvalidRequestError("max_concurrent must be at least 1")
        if not 1 <= self.min_concurrent <= self.max_concurrent:
            raise InvalidRequestError(
                f"min_concurrent is {self.min_concurrent}; it must be from 1 to "
                f"max_concurrent, which is {self.max_concurrent}"
            )

    def describe(self) -> JSONObject:
        """Return what the head of an output file says of them."""
        return dataclasses.asdict(self.rules) | {"seed": self.seed}

    def new_episode(self, planned: Planned) -> Episode:
        """Return the record that a rollout begins with."""
        task, seed = planned.task, self.seed
        return Episode(
            self.env_name,
            task.index,
            task.split,
            planned.number,
            None if seed is None else seed + planned.number,
        )


class Scheduler:
    """Plays rollouts over one client, on one event loop.

    `Gate` says how many play at once, ``turns`` which of their turns may be played now,
    and ``budget`` whether any episode or turn may begin.
    """

    def __init__(
        self,
        client: AsyncORSClient,
        settings: Settings,
        turns: Turns | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._turns = turns
        limit = AdaptiveLimit(
            settings.max_concurrent,
            settings.min_concurrent,
            by_latency=settings.adapt_to_latency,
        )
        self._gate = Gate(limit)
        self._budget = budget or Budget(settings.limits)
        self._alarm: asyncio.TimerHandle | None = None
        self._free: list[EpisodePlayer] = []
        self._busy: set[EpisodePlayer] = set()
        self._unsubscribe = (
            client.subscribe_to_retries(self._gate.note),
            client.subscribe_to_round_trips(limit.note_round_trip),
        )
        self._budget.on_stop(self._stop)

    async def aclose(self) -> None:
        """Let go of the client; no episode may be under way."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        if self._alarm is not None:
            self._alarm.cancel()
        while self._free:
            await self._free.pop().close()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a worker for each episode that may be under way; see `run_together`."""
        await run_together([work] * self._settings.max_concurrent)

    def _stop(self) -> None:
        self._gate.open()
        if self._budget.ends_what_is_in_flight:
            for player in self._busy:
                player.stop()

    def _watch_clock(self) -> None:
        """Have the budget look at the clock when `max_seconds` are over."""
        left = self._budget.seconds_left
        if self._alarm is None and left is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(left, self._budget.look_at_clock)

    async def play(self, planned: Planned, episode: Episode) -> bool:
        """Play a rollout as soon as the gate lets it begin, and fill its record in.

        Returns:
            True if it was played, False if a limit of the run was reached first.

        Raises:
            BaseException: The caller's mistake, and what the policy raised.
        """
        settings, budget = self._settings, self._budget
        self._watch_clock()
        await self._gate.begin()
        if budget.stopped:
            self._gate.end()
            return False
        if self._free:
            player = self._free.pop()
        else:
            player = EpisodePlayer(
                self._client,
                settings.env_name,
                settings.rules,
                settings.env_arguments,
                self._turns,
            )
        self._busy.add(player)
        spending = budget.begin()
        try:
            policy = settings.make_policy()
            await player.play(episode, planned.task, policy, spending)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Also where no policy could be made, or it failed in its `end_episode`.
            if episode.total_reward is not None:
                episode.fail(error, "policy")
            raise
        finally:
            self._busy.discard(player)
            self._free.append(player)
            self._gate.end()
            spending.end(episode)
        return True

    async def play_to_an_outcome(
        self, planned: Planned, attempts: int, before: Sequence[Attempt] = ()
    ) -> Episode:
        """Play a rollout, and again on a new session while it comes to no outcome.

        ``before`` holds earlier attempts, which count as well.

        Returns:
            The last attempt; the earlier ones are in ``episode.attempts``. It has no
            outcome where a limit of the run was reached before.

        Raises:
            BaseException: The caller's mistake, at once; and what the policy raised at
                the last attempt, unless it was an outage of its own.
        """
        earlier = list(before)
        while True:
            episode = self._settings.new_episode(planned)
            episode.attempts = list(earlier)
            is_last = len(earlier) + 1 >= attempts
            try:
                if not await self.play(planned, episode):
                    episode.end_without_outcome(self._budget.stopped, RUN_LIMIT)
            except (InvalidRequestError, AuthenticationError):
                raise
            except Exception as error:
                is_outage = isinstance(error, ORSError) and error.outage
                if is_last and not is_outage:
                    raise
            if is_last or episode.total_reward is not None or self._budget.stopped:
                return episode
            earlier.append(Attempt.of(episode))

    async def play_record(self, planned: Planned) -> Record | None:
        """Play a rollout, and return its record, also if it failed.

        None if a limit of the run was reached first. An error that has to end the run,
        such as SystemExit, is in ``episode.cause``.
        """
        episode = self._settings.new_episode(planned)
        try:
            if not await self.play(planned, episode):
                return None
        except asyncio.CancelledError:
            raise
        except BaseException:  # noqa: BLE001, S110 - the caller raises what ends the run
            pass
        success = None
        try:
            success = is_success(self._settings.success, episode)
        except Exception as error:  # noqa: BLE001 - the episode is lost, not the run
            episode.fail(error, "success")
        return Record(episode, success, planned.task.spec)


async def run_together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run async functions at once; what one raises cancels the others.

    Not with a task group: it takes a task that cancelled itself for a usual end.

    Raises:
        ORSError: If one cancelled itself.
        BaseException: What one raised.
    """
    together: Any = asyncio.current_task()
    tasks = [asyncio.create_task(_carry(work, together)) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        errors = [error for task in done if (error := task.exception())]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # else asyncio says that nobody asked
    for carried in errors:
        error = carried.args[0]
        if isinstance(error, asyncio.CancelledError):
            raise ORSError("a callback cancelled the task that it ran in") from error
        raise error


async def _carry(
    work: Callable[[], Awaitable[None]], together: asyncio.Task[Any]
) -> None:
    completion = await completion_of(work())
    if isinstance(completion.error, asyncio.CancelledError) and together.cancelling():
        # All are cancelled: the event loop ends, which is nobody's error.
        raise completion.error
    if completion.error is not None:
        raise _CarriedError(completion.error)


class _CarriedError(Exception):
    """Wraps an error that a task would not hand on as it is, such as SystemExit."""
