"""Thousands of sessions that are to be deleted at once, now or later."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._settings import make_settings
from ors_gym.client.background import _deletes
from ors_gym.client.background._deletes import Deletes
from ors_gym.client.background._own_connections import BackgroundConnections

pytestmark = pytest.mark.unit

SESSIONS = 3000


class ScriptedConnections(BackgroundConnections):
    """Confirms each delete, unless ``answer`` says otherwise."""

    def __init__(self, answer: Callable[[str], bool] = lambda _: True) -> None:
        super().__init__()
        self.deleted: list[str] = []
        self.most: dict[str, int] = {}
        self._answer = answer
        self._busy: dict[str, int] = {}

    async def run(self, server: RemoteServer, operation: Any) -> Any:
        session_id = dict(next(operation).head.headers)["X-Session-ID"]
        operation.close()
        name = server.base_url
        self._busy[name] = self._busy.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self._busy[name])
        await asyncio.sleep(3600 if "dead" in name else 0)
        self._busy[name] -= 1
        if answer := self._answer(session_id):
            self.deleted.append(session_id)
        return answer


def make_server(url: str = "http://127.0.0.1:1") -> RemoteServer:
    return RemoteServer(make_settings(url))


async def run_due(deletes: Deletes) -> None:
    deletes.start_due()
    while deletes._work:
        await deletes._work.wait(10.0)


def test_each_is_sent_once_however_many_wait() -> None:
    server = make_server()
    connections = ScriptedConnections()
    deletes = Deletes(connections)
    for number in range(SESSIONS):
        deletes.add(server, f"{number}", again=True)
    asyncio.run(run_due(deletes))
    assert connections.deleted == [f"{n}" for n in range(SESSIONS)]
    assert connections.most == {server.base_url: 64}

    # The second deletes are due in a minute, in the order of the first.
    for delete in deletes._later:
        delete.due -= 60.0
    connections.deleted.clear()
    asyncio.run(run_due(deletes))
    assert connections.deleted == [f"{n}" for n in range(SESSIONS)]
    assert not deletes


def test_a_server_that_is_gone_does_not_hold_up_the_others() -> None:
    gone, well = make_server("http://dead:1"), make_server("http://well:1")
    connections = ScriptedConnections()
    deletes = Deletes(connections)
    for number in range(200):
        deletes.add(gone, f"gone-{number}")
    for number in range(200):
        deletes.add(well, f"{number}")

    async def run() -> None:
        deletes.start_due()
        while len(connections.deleted) < 200:
            await deletes._work.wait(10.0)
        await deletes._work.cancel()

    asyncio.run(run())
    assert connections.deleted == [f"{number}" for number in range(200)]
    assert not deletes._work


def finish(deletes: Deletes, timeout: float = 2.0) -> None:
    asyncio.run(deletes.finish(lambda: False, timeout, patient=False))


def test_later_deletes_are_made_when_the_process_ends() -> None:
    connections = ScriptedConnections()
    deletes = Deletes(connections)
    deletes.add(make_server(), "one", again=True)
    finish(deletes)
    assert connections.deleted == ["one", "one"]


def test_what_comes_up_while_the_process_ends_is_deleted_too() -> None:
    connections = ScriptedConnections()
    deletes = Deletes(connections)
    coming = ["one", "two", "three"]

    def collect() -> bool:
        if coming:
            deletes.add(make_server(), coming.pop())
        return bool(coming)

    asyncio.run(deletes.finish(collect, 10.0, patient=False))
    assert sorted(connections.deleted) == ["one", "three", "two"]


def test_a_delete_that_fails_is_repeated_while_the_process_ends() -> None:
    failures = iter([False, False])
    connections = ScriptedConnections(lambda _: next(failures, True))
    deletes = Deletes(connections)
    deletes.add(make_server(), "one")
    finish(deletes)
    assert connections.deleted == ["one"]


def test_an_exit_does_not_wait_for_a_server_that_is_gone() -> None:
    connections = ScriptedConnections(lambda _: False)
    deletes = Deletes(connections)
    deletes.add(make_server(), "one")
    finish(deletes, timeout=3600.0)
    assert connections.deleted == []


def test_without_descriptors_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([False, False, False])
    monkeypatch.setattr(_deletes, "has_descriptors", lambda: next(left, True))
    monkeypatch.setattr(_deletes, "_REPEAT_SECONDS", 0.01)
    failures = iter([False] * 3)
    connections = ScriptedConnections(lambda _: next(failures, True))
    deletes = Deletes(connections)
    deletes.add(make_server(), "one")
    asyncio.run(run_due(deletes))
    assert connections.deleted == ["one"]
