"""A constructor so slow that a delete comes too early (docs/wire.md, point 11)."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import ors_gym
from ors_gym.client.background import _deletes as deletes
from ors_gym.client.background._thread import background
from tests.support.proxy.faults import Point, Reset
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer

SECONDS = 1.0


@pytest.fixture
def proxy(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy that sees the deletes; the second ones wait until they are asked for."""
    monkeypatch.setattr(deletes, "_AGAIN_SECONDS", 3600.0)
    with FaultProxy(server.base_url) as proxy:
        yield proxy


def delete_again() -> None:
    """Make the second deletes due."""
    for delete in list(background()._deletes._later):
        delete.due = 0.0


def play(proxy: FaultProxy) -> tuple[str, float | None]:
    """Play an episode whose first /create is not answered.

    Returns:
        The id of the session that was given up, and the reward in the other one.
    """
    proxy.plan("/create", (Reset(Point.BEFORE_REPLY, finish=False),))
    task = {"id": "0", "construct_seconds": SECONDS}
    with (
        ors_gym.ORSClient(proxy.url) as client,
        client.session("contract", task) as session,
    ):
        session.get_prompt()
        reward = session.call_tool("add", {"a": 1, "b": 2})["reward"]
        opened = session.session_id
    lost, used = [request.session_id for request in proxy.requests("/create")]
    assert used == opened
    assert lost is not None
    return lost, reward


def is_alive(server: RunningServer, session_id: str) -> bool:
    header = {"X-Session-ID": session_id}
    reply = httpx.post(f"{server.base_url}/ping", headers=header, timeout=30)
    return reply.status_code == 200


def test_the_second_delete_takes_what_the_first_did_not(
    server: RunningServer, proxy: FaultProxy
) -> None:
    session_id, reward = play(proxy)
    assert reward == 0.5
    deletes = [r.session_id for r in proxy.requests("/delete")]
    assert deletes.count(session_id) == 1
    if server.sdk.name.startswith("openreward"):
        # Constructed in a thread, and known to nobody before that is over.
        server.wait_for("ready", session=session_id)
        assert is_alive(server, session_id)
        assert not server.log("teardown", session=session_id)
        delete_again()
        server.wait_for("teardown", session=session_id)
    else:
        # Blocked by its constructor; the delete had its turn after that.
        delete_again()
    proxy.wait_for(3, "/delete")
    proxy.wait_until_done()
    deletes = [r.session_id for r in proxy.requests("/delete")]
    assert deletes.count(session_id) == 2
    assert not is_alive(server, session_id)
    assert server.runs(session=session_id) == 0
