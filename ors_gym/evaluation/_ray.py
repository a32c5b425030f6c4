"""What of an evaluation on a Ray cluster runs in Ray's actors."""

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
from ors_gym.evaluation._output import Record
from ors_gym.evaluation._plan import Key, Planned
from ors_gym.evaluation._player import Player, Settings
from ors_gym.evaluation._run import Run
from ors_gym.rollout import Episode
from ors_gym.rollout._clients import client_settings
from ors_gym.types import JSONObject

__all__ = ["Gate", "Worker", "connect", "play_on_ray", "read_played", "write_planned"]

_MOST_STARTS: Final = 3
"""Of one episode: it is taken to be what ends the workers."""
_CLOSING_SECONDS: Final = 10.0


def write_planned(planned: Planned) -> str:
    """Write an episode to be played as text, which travels well.

    Args:
        planned: The episode.

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
    """Read what a worker gave.

    Args:
        row: The row; its ``row`` is that of an output file.

    Returns:
        The record, with the error that ended the episode.
    """
    record = Record.from_row(json.loads(row["row"]))
    if row["cause"]:
        # Written by a worker of ours, which may run any code of ours anyway.
        record.episode.cause = pickle.loads(row["cause"])  # noqa: S301
    return record


class Gate:
    """An actor that all workers ask whether to go on.

    It outlives them, so it knows what they were at when they ended.
    """

    def __init__(self) -> None:
        self._starts: Counter[str] = Counter()
        self._under_way: set[str] = set()
        self._closed = asyncio.Event()
        self._idle = asyncio.Event()

    async def begin(self, planned: str) -> int:
        """Return how often an episode was begun, with this time; 0 if nothing may be.

        Args:
            planned: The episode.
        """
        if self._closed.is_set():
            # Of a worker that is gone, if it was begun.
            await self.end(planned)
            return 0
        self._starts[planned] += 1
        self._under_way.add(planned)
        return self._starts[planned]

    async def end(self, planned: str) -> None:
        """Tell that an episode is over, and its session deleted.

        Args:
            planned: The episode.
        """
        self._under_way.discard(planned)
        if self._closed.is_set() and not self._under_way:
            self._idle.set()

    async def wait(self) -> None:
        """Wait until nothing may be begun any more."""
        await self._closed.wait()

    async def close(self) -> None:
        """Have the workers stop, and wait until they have, in bounded time."""
        self._closed.set()
        if self._under_way:
            # Those of a worker that is gone end only when they are tried again.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _CLOSING_SECONDS)


class Worker:
    """An actor of Ray Data, which plays many episodes at once over one client.

    Args:
        job: A client's settings and those of the evaluation, pickled.
        gate: The `Gate`.
    """

    def __init__(self, job: bytes, gate: Any) -> None:
        self._client_settings, self._settings = pickle.loads(job)  # noqa: S301
        self._gate = gate
        self._player: Player | None = None
        self._playing: set[asyncio.Future[Record]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Play an episode; called many times at once on the actor's event loop.

        Args:
            batch: A column ``planned`` with one row.

        Returns:
            Columns ``row``, empty if it was not played, and ``cause``.
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
        return {"row": [json.dumps(record.row())], "cause": [cause]}

    async def _play(self, planned: Planned) -> Record | None:
        if self._player is None or self._watching is None:
            # Here, since it belongs to this event loop.
            client = AsyncORSClient(**self._client_settings)
            self._player = Player(client, self._settings)
            self._watching = asyncio.create_task(self._watch())
        playing = asyncio.ensure_future(self._player.play(planned))
        self._playing.add(playing)
        await asyncio.wait([playing])
        self._playing.discard(playing)
        return None if playing.cancelled() else playing.result()

    async def _watch(self) -> None:
        """Cancel what is under way when the gate closes: that deletes its sessions."""
        await self._gate.wait.remote()
        for playing in self._playing:
            playing.cancel()


def _give_up(settings: Settings, planned: Planned, starts: int) -> Record:
    task = planned.task
    episode = Episode(settings.env_name, task.index, task.split, planned.number)
    error = f"{starts} workers ended while they played it; see the log of the cluster"
    episode.end_without_outcome(error, "worker")
    return Record(episode, None, task.spec)


def _pickle_error(error: BaseException | None) -> bytes:
    """Pickle an error of ours: no other is known to survive it, or looked at."""
    return pickle.dumps(error) if isinstance(error, ORSError) else b""


_PURPOSE: Final = 'engine="ray"'
_MOST_BLOCKS: Final = 5_000
"""Ray Data's pieces of work: single episodes, unless there are very many."""
_LAST_ROWS_SECONDS: Final = 3.0
"""For what has ended when the run is stopped, and is on its way."""


def connect() -> tuple[Any, Any]:
    """Connect this process to a cluster if it is not, best in its main thread.

    Returns:
        The modules ``ray`` and ``ray.data``.

    Raises:
        MissingExtraError: If Ray is not installed.
    """
    ray, data = (import_extra(name, "ray", _PURPOSE) for name in ("ray", "ray.data"))
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    return ray, data


async def play_on_ray(
    run: Run,
    client: AsyncORSClient,
    settings: Settings,
    actors: int | None,
    actor_options: Mapping[str, Any],
) -> None:
    """Play all that is left of an evaluation on a Ray cluster.

    It is the one that this process is connected to, else that of ``RAY_ADDRESS``, else
    one that is started on this machine. An episode that a worker's end interrupts is
    played again by another; one that ends three workers is given up.

    Args:
        run: The evaluation.
        client: A client of this process; the actors have their own, of its settings.
        settings: How.
        actors: How many processes play; one for each CPU of the cluster if None.
        actor_options: What each of them asks for: ``num_cpus``, ``memory``, ...

    Raises:
        MissingExtraError: If Ray is not installed.
        InvalidRequestError: If the policy cannot be sent to other processes.
        ORSError: If the cluster fails before an episode has ended.
        Exception: What ``on_episode`` raises, or writing the output.
    """
    left = {planned.key: planned for planned in run.left}
    if not left:
        return
    ray, data = await asyncio.to_thread(connect)
    actors = actors or _count_cpus(ray)
    actors = min(actors, settings.max_concurrent, len(left))
    each = -(-settings.max_concurrent // actors)
    settings = dataclasses.replace(settings, max_concurrent=each)
    job = _pickle(ray, (client_settings(client), settings))
    gate = ray.remote(num_cpus=0, max_concurrency=10_000)(Gate).remote()
    planned = [{"planned": write_planned(one)} for one in left.values()]
    pieces = data.from_items(
        planned, override_num_blocks=min(len(planned), _MOST_BLOCKS)
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
    await _collect(run, left, pieces, gate)


async def _collect(run: Run, left: dict[Key, Planned], pieces: Any, gate: Any) -> None:
    """Keep what comes from the workers, and see to their end."""
    arriving = _Arriving(pieces)
    wanted = True
    try:
        async for row in arriving:
            await _keep(run, left, row)
            if run.stopped:
                break
    except Exception as error:
        wanted = False
        if not _is_of_ray(error):
            raise
        if not run.records:
            raise ORSError(f"the Ray cluster failed: {error}") from error
        run.stopped = f"the Ray cluster failed: {error}"
    finally:
        # Also after Ctrl-C: sessions are deleted, and what has ended is kept.
        try:
            await _close(gate)
            if wanted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_ROWS_SECONDS):
                        async for row in arriving:
                            await _keep(run, left, row)
        finally:
            arriving.close()
    if left and not run.stopped:
        run.stopped = f"the Ray cluster gave no result of {len(left)} episodes"


async def _close(gate: Any) -> None:
    """Have the workers stop; those of a cluster that is gone have."""
    try:
        await gate.close.remote()
    except Exception as error:
        if not _is_of_ray(error):
            raise


async def _keep(run: Run, left: dict[Key, Planned], row: JSONObject) -> None:
    """Keep an episode, once: work that is done again gives its rows again."""
    if not row["row"]:
        return
    record = read_played(row)
    planned = left.pop(record.key, None)
    if planned is not None:
        await run.keep(planned, record)


class _Arriving:
    """The rows of a dataset as they come, for an event loop.

    Args:
        pieces: The dataset.
    """

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        self._rows: asyncio.Queue[JSONObject | Exception | None] = asyncio.Queue()
        self._closed = False
        # A thread that the end of the process does not wait for, as it would for an
        # executor's: Ray cannot be interrupted while it waits.
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
        """Let go of the dataset, and of its actors, as soon as it gives a row."""
        self._closed = True

    def _read(self) -> None:
        try:
            self._pieces.context.enable_progress_bars = False
            # Nothing is fetched ahead, so that each row is here when it is there.
            for table in self._pieces.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    self._put(row)
                if self._closed:
                    break
        except Exception as error:  # noqa: BLE001 - told where the rows are awaited
            self._put(error)
        self._put(None)

    def _put(self, row: JSONObject | Exception | None) -> None:
        # The loop is closed where nobody waits any more.
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
