"""An evaluation on a Ray cluster: ``engine="ray"``.

Ray Data spreads the episodes over actors (`Worker`), each of which plays many at once.
This process collects their rows. One more actor, the `Gate`, tells the workers when to
stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pickle
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.env._task_order import Task
from ors_gym.errors import InvalidRequestError, ORSError, import_extra
from ors_gym.evaluation._collector import Collector
from ors_gym.rollout import Episode
from ors_gym.rollout._output import Record
from ors_gym.rollout._planned import Key, Planned
from ors_gym.rollout._scheduler import Scheduler, Settings
from ors_gym.types import JSONObject

_PURPOSE: Final = 'engine="ray"'
_MOST_BLOCKS: Final = 5_000
"""Ray Data's pieces of work: one episode each, unless there are more than this."""
_MOST_STARTS: Final = 3
"""After this many starts the episode is blamed for crashing workers."""
_CLOSING_SECONDS: Final = 10.0
"""Seconds to wait until the workers have stopped."""
_LAST_ROWS_SECONDS: Final = 3.0
"""Seconds to wait for rows still in transit."""


def connect() -> tuple[Any, Any]:
    """Connect this process to a cluster, and return ``ray`` and ``ray.data``."""
    ray, data = (import_extra(name, "ray", _PURPOSE) for name in ("ray", "ray.data"))
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    return ray, data


async def play_on_ray(
    collector: Collector,
    client: AsyncORSClient,
    settings: Settings,
    actors: int | None,
    actor_options: Mapping[str, Any],
) -> None:
    """Play all that is left of an evaluation on a Ray cluster.

    It is the cluster that this process is connected to, else that of ``RAY_ADDRESS``,
    else one that is started on this machine. An episode that a worker's end interrupts
    is played again by another; an episode that ends three workers is given up. The
    workers' clients have the settings of ``client``.
    """
    left = {planned.key: planned for planned in collector.left}
    if not left:
        return
    ray, data = await asyncio.to_thread(connect)
    actors = actors or _count_cpus(ray)
    actors = min(actors, settings.max_concurrent, len(left))
    each = -(-settings.max_concurrent // actors)
    settings = dataclasses.replace(
        settings,
        max_concurrent=each,
        min_concurrent=max(1, settings.min_concurrent // actors),
    )
    job = _pickle(ray, (client.settings, settings))
    gate = ray.remote(num_cpus=0, max_concurrency=10_000)(Gate).remote()
    rows = [{"planned": write_planned(one)} for one in left.values()]
    played = data.from_items(
        rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)
    ).map_batches(
        Worker,
        fn_constructor_args=(job, gate),
        batch_size=1,
        compute=data.ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=each,
            max_concurrent_calls_per_actor=each,
        ),
        **actor_options,
    )
    await _collect(collector, left, played, gate)


async def _collect(
    collector: Collector, left: dict[Key, Planned], played: Any, gate: Any
) -> None:
    """Keep the workers' rows as they come, and have the workers stop in the end."""
    arriving = _RowsArriving(played)
    wanted = True
    try:
        await _keep_arriving(collector, left, arriving)
    except Exception as error:
        wanted = False
        if not _is_of_ray(error):
            raise
        if not collector.records:
            raise ORSError(f"the Ray cluster failed: {error}") from error
        collector.reason = f"the Ray cluster failed: {error}"
    finally:
        # After Ctrl-C too, sessions are deleted, and ended episodes are kept.
        try:
            await _close(gate)
            if wanted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_ROWS_SECONDS):
                        async for row in arriving:
                            await _keep(collector, left, row)
        finally:
            arriving.close()
    if left and not collector.stopped:
        collector.reason = f"the Ray cluster gave no result for {len(left)} episodes"


async def _keep_arriving(
    collector: Collector, left: dict[Key, Planned], arriving: _RowsArriving
) -> None:
    """Keep rows until the last, or until the run is to stop."""
    budget = collector.budget
    while not collector.stopped:
        try:
            async with asyncio.timeout(budget.seconds_left):
                row = await anext(arriving, None)
        except TimeoutError:
            budget.look_at_clock()
            if not budget.stopped:
                raise
            break
        if row is None:
            break
        await _keep(collector, left, row)
    if left:
        collector.cut()


async def _close(gate: Any) -> None:
    """Have the workers stop; where the cluster is gone, they have."""
    try:
        await gate.close.remote()
    except Exception as error:
        if not _is_of_ray(error):
            raise


async def _keep(
    collector: Collector, left: dict[Key, Planned], row: JSONObject
) -> None:
    if not row["row"]:
        return  # the worker did not play it
    record = read_played(row)
    planned = left.pop(record.key, None)
    # Ray may repeat work; keep each row once.
    if planned is not None:
        collector.budget.begin().end(record.episode)
        if left:
            collector.cut()
        await collector.keep(planned, record)


class _RowsArriving:
    """The rows of a dataset as they come, for an event loop."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._loop = asyncio.get_running_loop()
        self._rows: asyncio.Queue[JSONObject | Exception | None] = asyncio.Queue()
        self._closed = False
        # Ray cannot be interrupted while it waits. The process's end waits for threads
        # of an executor, but not for this one.
        threading.Thread(target=self._read, daemon=True, name="ors_gym-ray").start()

    def __aiter__(self) -> AsyncIterator[JSONObject]:
        return self

    async def __anext__(self) -> JSONObject:
        row = await self._rows.get()
        if row is None:
            self._put(None)
            raise StopAsyncIteration
        if isinstance(row, Exception):
            raise row
        return row

    def close(self) -> None:
        """Let the dataset and its actors go with the next row."""
        self._closed = True

    def _read(self) -> None:
        try:
            self._dataset.context.enable_progress_bars = False
            # Without prefetching, each row arrives as soon as it exists.
            for table in self._dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    self._put(row)
                if self._closed:
                    break
        except Exception as error:  # noqa: BLE001 - raised where the rows are awaited
            self._put(error)
        self._put(None)

    def _put(self, row: JSONObject | Exception | None) -> None:
        # The loop is closed when nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._rows.put_nowait, row)


def _count_cpus(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


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


def _is_of_ray(error: Exception) -> bool:
    return any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)


class Gate:
    """An actor that all workers ask whether to go on.

    It outlives the workers, so it knows which episodes they were playing when they
    ended.
    """

    def __init__(self) -> None:
        self._starts: Counter[str] = Counter()
        self._under_way: set[str] = set()
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()

    async def begin(self, planned: str) -> int:
        """Return how often an episode was begun, this time included; 0 to stop."""
        if self._closed.is_set():
            # If it was begun already, then by a worker that is gone.
            await self.end(planned)
            return 0
        self._starts[planned] += 1
        self._under_way.add(planned)
        return self._starts[planned]

    async def end(self, planned: str) -> None:
        """Note that an episode is over, and its session deleted."""
        self._under_way.discard(planned)
        if self._closed.is_set() and not self._under_way:
            self._idle.set()

    async def wait(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        """Have the workers stop, and wait for that in bounded time."""
        self._closed.set()
        if self._under_way:
            # Episodes of a worker that is gone end only when they are tried again.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _CLOSING_SECONDS)


class Worker:
    """An actor of Ray Data, which plays many episodes at once over one client.

    ``job`` has the client's settings and those of the evaluation, pickled.
    """

    def __init__(self, job: bytes, gate: Any) -> None:
        self._client_settings, self._settings = pickle.loads(job)  # noqa: S301
        self._gate = gate
        self._scheduler: Scheduler | None = None
        self._playing: set[asyncio.Future[Record | None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Play the episode in the column ``planned``, which has one row.

        Ray calls this many times at once on the actor's event loop. The columns that
        are returned are those of `read_played`; ``row`` is empty if it was not played.
        """
        text = str(batch["planned"][0])
        starts = await self._gate.begin.remote(text)
        record = None
        try:
            if starts > _MOST_STARTS:
                record = _give_up(self._settings, _read_planned(text), starts - 1)
            elif starts:
                record = await self._play(_read_planned(text))
        finally:
            await self._gate.end.remote(text)
        if record is None:
            return {"row": [""], "cause": [b""]}
        cause = _pickle_error(record.episode.cause)
        return {"row": [record.encode()[1].decode()], "cause": [cause]}

    async def _play(self, planned: Planned) -> Record | None:
        if self._scheduler is None or self._watching is None:
            # Not in the constructor: the client belongs to this event loop.
            client = AsyncORSClient.from_settings(self._client_settings)
            self._scheduler = Scheduler(client, self._settings)
            self._watching = asyncio.create_task(self._watch())
        playing = asyncio.ensure_future(self._scheduler.play_record(planned))
        self._playing.add(playing)
        await asyncio.wait([playing])
        self._playing.discard(playing)
        return None if playing.cancelled() else playing.result()

    async def _watch(self) -> None:
        """Cancel the episodes when the gate closes; that deletes their sessions."""
        await self._gate.wait.remote()
        for playing in self._playing:
            playing.cancel()


def _give_up(settings: Settings, planned: Planned, starts: int) -> Record:
    task = planned.task
    episode = Episode(settings.env_name, task.index, task.split, planned.number)
    error = f"{starts} workers ended while they played it; see the log of the cluster"
    episode.end_without_outcome(error, "worker")
    return Record(episode, None, task.spec)


def write_planned(planned: Planned) -> str:
    """Write an episode to be played as text, for its way to a worker.

    Example:
        >>> write_planned(Planned(Task("test", 3), 0))
        '["test", 3, null, 0]'
    """
    task = planned.task
    return json.dumps([task.split, task.index, task.spec, planned.number])


def _read_planned(text: str) -> Planned:
    split, index, spec, number = json.loads(text)
    return Planned(Task(split, index, spec), number)


def read_played(row: JSONObject) -> Record:
    """Read a worker's row: ``row`` of an output file, and the pickled ``cause``."""
    record = Record.from_row(json.loads(row["row"]))
    if row["cause"]:
        # Our own worker wrote it, which may run any code of ours anyway.
        record.episode.cause = pickle.loads(row["cause"])  # noqa: S301
    return record


def _pickle_error(error: BaseException | None) -> bytes:
    """Pickle what matters to the process that collects: errors of ours, and ends."""
    if error is None or isinstance(error, Exception):
        return pickle.dumps(error) if isinstance(error, ORSError) else b""
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        # Its class may be known to the worker alone.
        error = SystemExit(f"{type(error).__name__}: {error}")
    return pickle.dumps(error)
