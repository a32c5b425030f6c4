"""Pings from the background, and its exit: docs/wire.md, point 12."""

import contextlib
import gc
import threading
from collections.abc import Iterator

import httpx
import pytest

import ors_gym
from ors_gym.client.background import Pending, _thread, background
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.support.waiting import wait_until


@contextlib.contextmanager
def pinged(
    server: RunningServer, environment: str = "contract", index: int = 0
) -> Iterator[tuple[FaultProxy, ors_gym.Session]]:
    """Yield a proxy, and a session behind it that is pinged often."""
    with FaultProxy(server.base_url) as proxy, ors_gym.ORSClient(proxy.url) as client:
        client._server.ping_every = 0.1
        with client.session(environment, split="train", index=index) as session:
            session.get_prompt()
            yield proxy, session


@pytest.mark.slow
def test_pings_go_on_while_idle_and_during_a_call(server: RunningServer) -> None:
    with pinged(server) as (proxy, session):
        proxy.wait_for(2, "/ping")
        before = len(proxy.requests("/ping"))
        session.call_tool("slow", {"seconds": 1.5})
        pings = proxy.requests("/ping")
        assert len(pings) > before
        assert {ping.session_id for ping in pings} == {session.session_id}


@pytest.mark.slow
def test_pings_go_on_during_set_up(server: RunningServer) -> None:
    with pinged(server, "slowsetup", index=15) as (proxy, _):
        assert proxy.requests("/ping")


def test_a_session_that_the_server_lost_is_known_to_be_lost(server: RunningServer):
    with pinged(server) as (_, session):
        header = {"X-Session-ID": session.session_id}
        httpx.post(f"{server.base_url}/delete", headers=header).raise_for_status()
        wait_until(lambda: bool(session.state.lost))
        with pytest.raises(ors_gym.SessionLostError, match="open a new session"):
            session.call_tool("add", {"a": 1, "b": 2})
    assert server.runs() == 0


def test_a_ping_over_a_closed_client_of_the_user_tells_nothing(one_server) -> None:
    own = httpx.Client()
    with ors_gym.ORSClient(one_server.base_url, client=own) as client:
        session = client.session("contract", split="train", index=0).open()
        session.get_prompt()
        own.close()
        registered = background().find(session.session_id)
        assert registered is not None
        ping = background()._sessions._ping(registered)
        work: Pending[None] = Pending()
        work.start(background()._thread.start(), ping)
        work.result(20)
        assert not session.state.lost
        session.close(wait=False)


@pytest.mark.slow
def test_a_network_that_comes_and_goes_loses_no_session(server: RunningServer) -> None:
    with pinged(server) as (proxy, session):
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
    with pinged(server) as (proxy, session):
        session.call_tool("add", {"a": 1, "b": 2})
        proxy.wait_for(1, "/ping")
        pings = {request.connection for request in proxy.requests("/ping")}
        calls = {request.connection for request in proxy.requests("/call")}
        assert not pings & calls


def test_the_thread_exits_after_the_last_session(server, monkeypatch):
    monkeypatch.setattr(_thread, "_LINGER_SECONDS", 0.5)

    def running() -> bool:
        return any(thread.name == "ors_gym" for thread in threading.enumerate())

    with ors_gym.ORSClient(server.base_url) as client:
        with client.session("contract", split="train", index=0) as session:
            session.get_prompt()
            assert running()
        # Earlier tests may have left deletes that are due later.
        background().delete_all()
        gc.collect()
        wait_until(lambda: not running(), seconds=30.0)
        with client.session("contract", split="train", index=0) as session:
            assert session.get_prompt()
            assert running()
