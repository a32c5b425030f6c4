"""What of an evaluation on a Ray cluster runs in Ray's actors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.client import AsyncORSClient
from ors_gym.errors import ORSError
from ors_gym.evaluation.plan import Planned
from ors_gym.evaluation.player import Player, Settings
from ors_gym.evaluation.records import Record
from ors_gym.rollout import Episode
from ors_gym.tasks import Task
from ors_gym.types import JSONObject

__all__ = ["Gate", "Worker", "read_played", "write_planned"]

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
