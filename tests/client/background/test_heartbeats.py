"""Pings from the background: docs/wire.md, point 12."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

import ors_gym
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


def quick_client(url: str) -> ors_gym.ORSClient:
    client = ors_gym.ORSClient(url)
    client._server.ping_every = 0.1
    return client


def test_pings_go_on_while_idle_and_during_a_call(server: RunningServer) -> None:
    with FaultProxy(server.base_url) as proxy, quick_client(proxy.url) as client:
        with client.session("contract", split="train", index=0) as session:
            session.get_prompt()
            proxy.wait_for(2, "/ping")
            before = len(proxy.requests("/ping"))
            session.call_tool("slow", {"seconds": 1.5})
            assert len(proxy.requests("/ping")) > before
            session_id = session.session_id
        pings = proxy.requests("/ping")
        assert {ping.session_id for ping in pings} == {session_id}


def test_pings_go_on_during_set_up(server: RunningServer) -> None:
    with (
        FaultProxy(server.base_url) as proxy,
        quick_client(proxy.url) as client,
        client.session("slowsetup", split="train", index=15) as session,
    ):
        session.get_prompt()
        assert proxy.requests("/ping")


def test_a_session_that_the_server_lost_is_known_to_be_lost(
    server: RunningServer,
) -> None:
    with quick_client(server.base_url) as client:
        session = client.session("contract", split="train", index=0).open()
        session.get_prompt()
        header = {"X-Session-ID": session.session_id}
        httpx.post(f"{server.base_url}/delete", headers=header).raise_for_status()
        wait_until(lambda: bool(session.state.lost))
        with pytest.raises(ors_gym.SessionLostError, match="open a new session"):
            session.call_tool("add", {"a": 1, "b": 2})
        session.close()
    assert server.runs() == 0


def test_a_network_that_comes_and_goes_loses_no_session(server: RunningServer) -> None:
    with (
        FaultProxy(server.base_url) as proxy,
        quick_client(proxy.url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        session.get_prompt()
        for _ in range(3):
            seen = len(proxy.requests("/ping"))
            with proxy.refusing():
                proxy.drop_all()
                # Long enough for a ping or two to fail.
                threading.Event().wait(0.3)
            proxy.wait_for(seen + 1, "/ping")
        assert session.state.lost == ""
        assert session.call_tool("add", {"a": 1, "b": 2})["reward"] == 0.5


def test_pings_use_connections_of_their_own(server: RunningServer) -> None:
    with FaultProxy(server.base_url) as proxy, quick_client(proxy.url) as client:
        with client.session("contract", split="train", index=0) as session:
            session.get_prompt()
            session.call_tool("add", {"a": 1, "b": 2})
            proxy.wait_for(1, "/ping")
        pings = {request.connection for request in proxy.requests("/ping")}
        calls = {request.connection for request in proxy.requests("/call")}
        assert not pings & calls
