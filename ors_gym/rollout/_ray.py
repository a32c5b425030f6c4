"""Rollouts on a Ray cluster: ``engine="ray"``.

`RayScheduler` has the interface of `Scheduler`. Its rollouts are played by actors
(`Worker`), each of which plays many at once over a client of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import pickle
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.client.background import background
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError, ORSError, import_extra
from ors_gym.rollout._episode import Attempt, Episode
from ors_gym.rollout._limits import RUN_LIMIT, Budget, RunLimits
from ors_gym.rollout._output import Record, is_success
from ors_gym.rollout._planned_rollout import Planned
from ors_gym.rollout._player import Turns
from ors_gym.rollout._scheduler import Scheduler, Settings, run_together
from ors_gym.types import JSONObject

_PURPOSE: Final = 'engine="ray"'
_MOST_STARTS: Final = 3
"""After this many starts the episode is blamed for crashing workers.

At its last start it plays alone, so that no other is blamed for what it does.
"""
_CLOSING_SECONDS: Final = 10.0
"""Seconds to wait until a worker has deleted its sessions."""
_AT_ONCE: Final = 10_000
"""Calls that Ray lets into an actor at once; the scheduler bounds them already."""
_LOOK_SECONDS: Final = 0.05
"""How often a new version is looked for."""


def connect() -> Any:
    """Connect this process to a cluster, and return ``ray``.

    It is the cluster that this process is connected to, else that of ``RAY_ADDRESS``,
    else one that is started on this machine.
    """
    ray = import_extra("ray", "ray", _PURPOSE)
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    return ray


def read_ray_options(
    engine: str, actors: int | None, actor_options: Mapping[str, Any] | None
) -> tuple[int | None, Mapping[str, Any]] | None:
    """Return the number of Ray's actors and their options; None for local play."""
    if engine not in ("local", "ray"):
        raise InvalidRequestError(f"engine is {engine!r}; it must be 'local' or 'ray'")
    if engine == "local" and (actors is not None or actor_options is not None):
        raise InvalidRequestError('actors= and actor_options= need engine="ray"')
    if actors is not None and actors < 1:
        raise InvalidRequestError("actors must be at least 1")
    return None if engine == "local" else (actors, actor_options or {})


def make_scheduler(
    client: AsyncORSClient,
    settings: Settings,
    turns: Turns | None,
    budget: Budget,
    ray: tuple[int | None, Mapping[str, Any]] | None,
) -> Scheduler | RayScheduler:
    """Make the scheduler of a run, by what `read_ray_options` returned."""
    if ray is None:
        return Scheduler(client, settings, turns, budget)
    actors, options = ray
    return RayScheduler(
        client, settings, turns, budget, actors=actors, actor_options=options
    )


class _WorkerLostError(Exception):
    """Raised where the actor that played a rollout ended."""


class ClusterFailedError(ORSError):
    """Raised where no worker begins any more."""


class RayScheduler:
    """Plays rollouts by the actors of a Ray cluster.

    A worker that ends is replaced, and its rollouts are played again. Workers' clients
    have the settings of ``client``.
    """

    def __init__(
        self,
        client: AsyncORSClient,
        settings: Settings,
        turns: Turns | None,
        budget: Budget,
        *,
        actors: int | None = None,
        actor_options: Mapping[str, Any],
    ) -> None:
        ray = self._ray = connect()
        self._settings = settings
        self._turns = turns
        self._version: Any = None
        count = actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
        count = min(count, settings.max_concurrent)
        most = -(-settings.max_concurrent // count)
        # This process watches the limits, over all workers. Workers need the prices to
        # report what their earlier attempts at an episode cost.
        each = dataclasses.replace(
            settings,
            max_concurrent=most,
            min_concurrent=max(1, settings.min_concurrent // count),
            limits=RunLimits(prices=settings.limits.prices),
        )
        self._job = _pickle(ray, (client.settings, each, turns is not None))
        options = {"num_cpus": 1, **actor_options, "max_concurrency": _AT_ONCE}
        self._actor_class = ray.remote(Worker).options(**options)
        self._tokens = itertools.count()
        self._load: dict[Any, int] = {}
        """How many rollouts each actor that is ready plays."""
        self._reserved: set[Any] = set()
        """Actors that play one rollout alone, or will when the others have ended."""
        self._starting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._budget = budget
        self._alarm: asyncio.TimerHandle | None = None
        if (left := budget.seconds_left) is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(left, budget.look_at_clock)
        self._in_flight: dict[int, Any] = {}
        """The actors of rollouts under way, by their tokens."""
        self._closed = False
        self._failures = 0
        """Workers in a row that did not begin."""
        self._failure: ClusterFailedError | None = None
        for _ in range(count):
            self._start_worker()
        self._watching: asyncio.Task[None] | None = None
        if turns is not None:
            turns.follow = self._pass_on
            self._watching = asyncio.create_task(self._watch_version())
        budget.on_stop(self._stop)

    def _stop(self) -> None:
        """Take no further rollout; end what is under way where waiting is no use."""
        self._changed.set()
        if self._budget.ends_what_is_in_flight:
            for token, actor in self._in_flight.items():
                actor.cancel.remote(token)

    def _start_worker(self) -> None:
        task = asyncio.create_task(
            self._await_worker(self._actor_class.remote(self._job))
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _await_worker(self, actor: Any) -> None:
        """Let rollouts go to an actor once the cluster has room for it."""
        try:
            await actor.begin.remote()
        except Exception as error:  # noqa: BLE001 - raised where a worker is awaited
            self._failures += 1
            if self._failures >= _MOST_STARTS:
                told = str(error).strip()
                self._failure = ClusterFailedError(f"the Ray cluster failed: {told}")
                self._changed.set()
            elif not self._closed:
                self._start_worker()
            return
        self._failures, self._failure = 0, None
        # Before any rollout: Ray keeps the order of calls.
        actor.note.remote(self._version)
        if self._turns is not None and self._turns.paused:
            actor.hold.remote(True)
        self._load[actor] = 0
        self._changed.set()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a worker for each rollout that may be under way; see `run_together`."""
        await run_together([work] * self._settings.max_concurrent)

    async def play_record(self, planned: Planned) -> Record | None:
        """As `Scheduler.play_record`; None also for one that a limit ended."""
        error = ""
        for start in range(1, _MOST_STARTS + 1):
            alone = start == _MOST_STARTS
            try:
                return await self._play(planned, None, (), alone=alone)
            except _WorkerLostError as lost:
                error = str(lost)
                self._budget.lose({})
        error = f"{_MOST_STARTS} workers ended while they played it: {error}"
        return Record(self._give_up(planned, error), None, planned.task.spec)

    async def play_to_an_outcome(self, planned: Planned, attempts: int) -> Episode:
        """As `Scheduler.play_to_an_outcome`; a lost worker ends an attempt."""
        earlier: list[Attempt] = []  # each lost its worker
        while True:
            began = time.monotonic()
            start = len(earlier) + 1
            # An only start is not alone, or all would play one after another.
            alone = start > 1 and start >= min(attempts, _MOST_STARTS)
            try:
                record = await self._play(planned, attempts, earlier, alone=alone)
            except _WorkerLostError as lost:
                error = f"the worker that played it ended: {lost}"
                self._budget.lose({})
                if len(earlier) + 1 >= attempts:
                    episode = self._give_up(planned, error)
                    episode.attempts = earlier
                    return episode
                seconds = time.monotonic() - began
                earlier.append(Attempt("worker", error, time.time(), seconds, 0))
            else:
                if record is not None:
                    return record.episode
                episode = self._settings.new_episode(planned)
                episode.end_without_outcome(self._budget.stopped, RUN_LIMIT)
                episode.attempts = earlier
                return episode

    def _is_over(self) -> bool:
        return bool(self._budget.stopped)

    def _give_up(self, planned: Planned, error: str) -> Episode:
        episode = self._settings.new_episode(planned)
        episode.end_without_outcome(f"{error}; see the log of the cluster", "worker")
        return episode

    async def _take_actor(self, *, alone: bool) -> Any:
        """Return the actor that plays the fewest, for `_return_actor`; None at a limit.

        One that is to play ``alone`` gets no other rollout until it is returned.
        """
        while not self._is_over():
            shared = [actor for actor in self._load if actor not in self._reserved]
            if shared:
                actor = min(shared, key=self._load.__getitem__)
                self._load[actor] += 1
                if not alone or await self._empty(actor):
                    return actor
            elif self._failure is not None and not self._load:
                raise self._failure
            else:
                await self._wait_for_change()
        return None

    async def _empty(self, actor: Any) -> bool:
        """Wait until an actor plays nothing else; return False if it ended before."""
        self._reserved.add(actor)
        is_empty = False
        try:
            while self._load.get(actor, 0) > 1 and not self._is_over():
                await self._wait_for_change()
            is_empty = actor in self._load and not self._is_over()
        finally:
            if not is_empty:
                self._return_actor(actor)
        return is_empty

    def _return_actor(self, actor: Any) -> None:
        self._reserved.discard(actor)
        if actor in self._load:
            self._load[actor] -= 1
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _play(
        self,
        planned: Planned,
        attempts: int | None,
        earlier: Sequence[Attempt],
        *,
        alone: bool,
    ) -> Record | None:
        """Play a rollout on an actor, ``alone`` if it must; None at a limit."""
        await self._push_version()
        actor = await self._take_actor(alone=alone)
        if actor is None:
            return None
        token = next(self._tokens)
        self._in_flight[token] = actor
        told = [dataclasses.asdict(attempt) for attempt in earlier]
        try:
            reply = await actor.play.remote(
                token, write_planned(planned), attempts, told
            )
        except asyncio.CancelledError:
            await self._settle([actor.cancel.remote(token)])
            raise
        except Exception as error:
            if not self._is_of_ray(error):
                raise
            self._replace(actor)
            raise _WorkerLostError(str(error).partition("\n")[0]) from error
        finally:
            del self._in_flight[token]
            self._return_actor(actor)
        if self._is_over() and not (reply["row"] or reply["raised"]):
            return None
        record = read_played(reply)
        for attempt in record.episode.attempts[len(earlier) :]:
            self._budget.lose(attempt.usage)
        self._budget.begin().end(record.episode)
        return record

    def _replace(self, actor: Any) -> None:
        if self._load.pop(actor, None) is not None and not self._closed:
            self._start_worker()

    def _is_of_ray(self, error: BaseException) -> bool:
        kinds = type(error).__mro__
        return any(kind.__module__.startswith("ray.") for kind in kinds)

    async def _settle(
        self, calls: Sequence[Any], seconds: float | None = _CLOSING_SECONDS
    ) -> None:
        """Wait for calls of actors, however they end; an actor may be gone."""
        if calls:
            tasks = [asyncio.create_task(_await_quietly(call)) for call in calls]
            await asyncio.wait(tasks, timeout=seconds)

    def _pass_on(self, paused: bool) -> Awaitable[None]:
        """Pause or resume the turns of all workers."""
        calls = [actor.hold.remote(paused) for actor in self._load]
        return self._settle(calls, None)

    async def _push_version(self) -> None:
        if self._turns is None:
            return
        version = await self._turns.ask_version()
        if version != self._version:
            self._version = version
            for actor in self._load:
                actor.note.remote(version)

    async def _watch_version(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            # What `version` raises, the next rollout raises to the caller.
            with contextlib.suppress(Exception):
                await self._push_version()

    async def aclose(self) -> None:
        """Have the workers delete their sessions, and end."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        if self._watching is not None:
            self._watching.cancel()
        for task in self._starting:
            task.cancel()
        await self._settle([actor.close.remote() for actor in self._load])
        for actor in self._load:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)


async def _await_quietly(call: Any) -> None:
    with contextlib.suppress(Exception):
        await call


def _pickle(ray: Any, value: Any) -> bytes:
    try:
        pickled: bytes = ray.cloudpickle.dumps(value)
    except Exception as error:
        raise InvalidRequestError(
            "the policy, success or another argument cannot be sent to the workers of "
            f"{_PURPOSE}: {error}. Open what cannot be pickled (files, clients, locks) "
            "inside the policy, or pass policy_factory="
        ) from error
    return pickled


class Worker:
    """An actor, which plays many rollouts at once over one client.

    ``job`` has the client's settings, those of the rollouts, and whether their turns
    may be paused, pickled.
    """

    def __init__(self, job: bytes) -> None:
        client_settings, settings, has_turns = pickle.loads(job)  # noqa: S301
        self._client_settings = client_settings
        self._settings: Settings = settings
        self._version: Any = None
        self._turns = Turns(lambda: self._version) if has_turns else None
        self._scheduler: Scheduler | None = None
        self._playing: dict[int, asyncio.Task[Record]] = {}

    async def begin(self) -> None:
        """Make the client, which belongs to this event loop."""
        client = AsyncORSClient.from_settings(self._client_settings)
        self._scheduler = Scheduler(client, self._settings, self._turns)

    async def note(self, version: Any) -> None:
        """Take the version of the weights."""
        self._version = version

    async def hold(self, paused: bool) -> None:
        """Pause the turns, and wait for those that are played; or let them go on."""
        if self._turns is None:
            return
        if paused:
            await self._turns.pause()
        else:
            self._turns.resume()

    async def play(
        self,
        token: int,
        planned: str,
        attempts: int | None,
        earlier: Sequence[JSONObject],
    ) -> JSONObject:
        """Play a rollout; what is returned is for `read_played`."""
        work = self._play(_read_planned(planned), attempts, earlier)
        task = self._playing[token] = asyncio.ensure_future(work)
        await asyncio.wait([task])
        del self._playing[token]
        if task.cancelled():
            return {"row": "", "cause": b"", "raised": b""}
        if (error := task.exception()) is not None:
            return {"row": "", "cause": b"", "raised": _pickle_error(error)}
        record = task.result()
        cause = record.episode.cause
        own = isinstance(cause, ORSError) or not isinstance(cause, Exception | None)
        kept = _pickle_error(cause) if own and cause is not None else b""
        return {"row": record.encode()[1].decode(), "cause": kept, "raised": b""}

    async def _play(
        self, planned: Planned, attempts: int | None, earlier: Sequence[JSONObject]
    ) -> Record:
        scheduler = self._scheduler
        assert scheduler is not None  # noqa: S101 - the driver waited for `begin`
        if attempts is None:
            record = await scheduler.play_record(planned)
            assert record is not None  # noqa: S101 - it has no limits
            return record
        before = [Attempt.from_dict(one) for one in earlier]
        episode = await scheduler.play_to_an_outcome(planned, attempts, before)
        success = is_success(self._settings.success, episode)
        return Record(episode, success, planned.task.spec)

    async def cancel(self, token: int) -> None:
        """Cancel a rollout; its session is deleted then."""
        task = self._playing.get(token)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Cancel all rollouts at once, and wait until their sessions are deleted."""
        playing = list(self._playing.values())
        for task in playing:
            task.cancel()
        if playing:
            await asyncio.wait(playing, timeout=_CLOSING_SECONDS / 4)
        # The process is killed next, so nothing may be left to its background thread.
        await asyncio.to_thread(background().delete_all, _CLOSING_SECONDS / 2)


def write_planned(planned: Planned) -> str:
    """Write a rollout to be played as text, for its way to a worker.

    Example:
        >>> write_planned(Planned(Task("test", 3), 0))
        '["test", 3, null, 0]'
    """
    task = planned.task
    return json.dumps([task.split, task.index, task.spec, planned.number])


def _read_planned(text: str) -> Planned:
    split, index, spec, number = json.loads(text)
    return Planned(Task(split, index, spec), number)


def read_played(reply: JSONObject) -> Record:
    """Read a worker's reply: ``row`` of an output file, and the pickled ``cause``.

    Raises:
        BaseException: What ended the rollout and is to end more than that.
    """
    # Our own worker wrote it, which may run any code of ours anyway.
    if reply["raised"]:
        raise pickle.loads(reply["raised"])  # noqa: S301
    if not reply["row"]:
        raise asyncio.CancelledError
    record = Record.from_row(json.loads(reply["row"]))
    if reply["cause"]:
        record.episode.cause = pickle.loads(reply["cause"])  # noqa: S301
    return record


def _pickle_error(error: BaseException) -> bytes:
    """Pickle an error for another process, which may not know its class."""
    known = error
    if isinstance(error, SystemExit | KeyboardInterrupt | ORSError):
        pass
    elif not isinstance(error, Exception):
        known = SystemExit(f"{type(error).__name__}: {error}")
    elif type(error).__module__ != "builtins":
        known = ORSError(f"{type(error).__name__}: {error}")
    try:
        pickled = pickle.dumps(known)
        # One whose class takes other arguments than it keeps fails only there.
        pickle.loads(pickled)  # noqa: S301
    except Exception:  # noqa: BLE001 - what it holds may be anything
        return pickle.dumps(ORSError(f"{type(error).__name__}: {error}"))
    return pickled
