"""The episodes of an evaluation on a Ray cluster.

Ray Data hands the episodes one by one to actors, each of which plays many at once over
one client. The plan, the output file and the progress bar stay where they are, in the
process that called `evaluate`: so that a row is written once, whatever becomes of the
workers, and a run that began here may go on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.evaluation.cluster_worker import Gate, Worker, read_played, write_planned
from ors_gym.evaluation.extras import load
from ors_gym.evaluation.plan import Key, Planned
from ors_gym.evaluation.player import Settings
from ors_gym.evaluation.run import Run
from ors_gym.rollout.clients import client_settings
from ors_gym.types import JSONObject

__all__ = ["connect", "play_on_ray"]

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
    ray, data = (load(name, _PURPOSE, "ray") for name in ("ray", "ray.data"))
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
