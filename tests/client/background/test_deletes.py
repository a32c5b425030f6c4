"""Thousands of sessions that are to be deleted at once, now or later."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from unittest.mock import patch

from ors_gym.client._connection import Link
from ors_gym.client.background._connections import Channels
from ors_gym.client.background._deletes import Deletions

SESSIONS = 3000


class CountingQueue(deque[Any]):
    """A queue that counts what is taken from it."""

    taken = 0

    def popleft(self) -> Any:
        self.taken += 1
        return super().popleft()


def test_each_is_looked_at_once_however_many_wait() -> None:
    deleted: list[str] = []
    most = 0

    async def delete(_: Deletions, doomed: Any) -> None:
        nonlocal most
        most = max(most, len(deletions._running.tasks))
        await asyncio.sleep(0)
        deleted.append(doomed.session_id)

    async def reap() -> None:
        deletions.reap()
        while deletions._running:
            await asyncio.wait(deletions._running.tasks)

    deletions = Deletions(Channels())
    queue = deletions._doomed = CountingQueue()
    link = Link("http://127.0.0.1:1")
    with patch.object(Deletions, "_delete", delete):
        for number in range(SESSIONS):
            deletions.add(link, f"{number}")
            deletions.add_later(link, f"{number}")
        asyncio.run(reap())
        assert deleted == [f"{number}" for number in range(SESSIONS)]
        assert queue.taken == 2 * SESSIONS
        assert most == 64

        # The second deletes are due in a minute, in the order of the first.
        for doomed in deletions._later:
            doomed.due -= 60.0
        asyncio.run(reap())
    assert deleted[SESSIONS:] == deleted[:SESSIONS]
    assert queue.taken == 2 * SESSIONS
    assert not deletions


def test_later_deletes_are_made_when_the_process_ends() -> None:
    deleted: list[str] = []

    async def delete(_: Deletions, doomed: Any, *__: Any) -> None:
        deleted.append(doomed.session_id)

    async def end() -> None:
        deletions.reap()
        await deletions.delete_all([(link, "another")], 1.0)

    deletions = Deletions(Channels())
    link = Link("http://127.0.0.1:1")
    with patch.object(Deletions, "_delete", delete):
        deletions.add(link, "one")
        deletions.add_later(link, "one")
        asyncio.run(end())
    assert sorted(deleted) == ["another", "one", "one"]
