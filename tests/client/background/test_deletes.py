"""Thousands of sessions that are to be deleted at once, now or later."""

import asyncio
from collections import deque
from typing import Any
from unittest.mock import patch

from ors_gym.client._remote_server import RemoteServer, make_settings
from ors_gym.client.background._deletes import Deletes
from ors_gym.client.background._own_connections import BackgroundConnections

SESSIONS = 3000


class CountingQueue(deque[Any]):
    taken = 0

    def popleft(self) -> Any:
        self.taken += 1
        return super().popleft()


def test_each_is_looked_at_once_however_many_wait() -> None:
    deleted: list[str] = []
    most = 0

    async def send(_: Deletes, delete: Any) -> None:
        nonlocal most
        most = max(most, len(deletes._tasks.running))
        await asyncio.sleep(0)
        deleted.append(delete.session_id)

    async def run_due() -> None:
        deletes.start_due()
        while deletes._tasks:
            await asyncio.wait(deletes._tasks.running)

    deletes = Deletes(BackgroundConnections())
    queue = deletes._new = CountingQueue()
    server = RemoteServer(make_settings("http://127.0.0.1:1"))
    with patch.object(Deletes, "_send", send):
        for number in range(SESSIONS):
            deletes.add(server, f"{number}")
            deletes.add_later(server, f"{number}")
        asyncio.run(run_due())
        assert deleted == [f"{number}" for number in range(SESSIONS)]
        assert queue.taken == 2 * SESSIONS
        assert most == 64

        # The second deletes are due in a minute, in the order of the first.
        for delete in deletes._later:
            delete.due -= 60.0
        asyncio.run(run_due())
    assert deleted[SESSIONS:] == deleted[:SESSIONS]
    assert queue.taken == 2 * SESSIONS
    assert not deletes


def test_later_deletes_are_made_when_the_process_ends() -> None:
    deleted: list[str] = []

    async def send(_: Deletes, delete: Any, *__: Any) -> None:
        deleted.append(delete.session_id)

    async def end() -> None:
        deletes.start_due()
        await deletes.delete_all([(server, "another")], 1.0)

    deletes = Deletes(BackgroundConnections())
    server = RemoteServer(make_settings("http://127.0.0.1:1"))
    with patch.object(Deletes, "_send", send):
        deletes.add(server, "one")
        deletes.add_later(server, "one")
        asyncio.run(end())
    assert sorted(deleted) == ["another", "one", "one"]
