"""Idle connections that a server closes, and many idle sessions that are kept alive."""

import concurrent.futures
import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest

import ors_gym
from tests.conftest import CURRENT
from tests.support.processes import run_python
from tests.support.proxy.faults import HangUp, Point, Reset
from tests.support.proxy.proxy import FaultProxy
from tests.support.proxy.scripted import ScriptedServer
from tests.support.servers.process import RunningServer, start_server
from tests.system.faults.scripted_ors import scripted_ors

KEEP_ALIVE = 1.0  # seconds after which the server closes; uvicorn takes whole ones only
WINDOW = 0.02
LATE = 0.4
"""Seconds around the expiry in which a call may cross the server's FIN: 2 ms on an idle
machine. On a busy one the server's timer and the client are late by more."""


@dataclasses.dataclass(frozen=True)
class Sent:
    idle: float
    error: str


def send_after(url: str, idle: float) -> Sent:
    with (
        ors_gym.ORSClient(url) as client,
        client.session("contract", split="train", index=0, call_timeout=20) as session,
    ):
        session.get_prompt()
        session.call_tool("count", {})
        last = time.monotonic()
        threading.Event().wait(idle)
        waited = time.monotonic() - last
        try:
            text = session.call_tool("count", {})["blocks"][0]["text"]
        except ors_gym.AmbiguousCallError as error:
            return Sent(waited, error.kind)
        assert text == "2"
        return Sent(waited, "")


def send_around(url: str, idles: Sequence[float], at_once: int) -> list[Sent]:
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda idle: send_after(url, idle), idles))


def check(server: RunningServer, sent: Sequence[Sent]) -> list[Sent]:
    """Check that nothing was lost far from the expiry, and nothing ran twice."""
    lost = [one for one in sent if one.error]
    for one in lost:
        assert abs(one.idle - KEEP_ALIVE) < LATE, one
    # What was lost had met the server's FIN: it did not run, and is not sent again.
    shown = 2 * len(sent) - len(lost)
    assert shown <= server.runs("count") <= 2 * len(sent)
    return lost


@pytest.mark.slow
@pytest.mark.parametrize("name", CURRENT)
def test_calls_around_the_expiry(name: str) -> None:
    around = [KEEP_ALIVE + place * WINDOW for place in range(-4, 5)]
    idles = [0.0, 0.3, 0.5, *around, 1.5, 1.7, 2.0]
    with start_server(name, keep_alive=int(KEEP_ALIVE)) as server:
        sent = send_around(server.base_url, idles, at_once=len(idles))
        check(server, sent)


@pytest.mark.slow
@pytest.mark.parametrize("name", CURRENT)
def test_many_calls_around_the_expiry(name: str) -> None:
    idles = [KEEP_ALIVE + place * WINDOW / 20 for place in range(-100, 101)]
    with start_server(name, keep_alive=int(KEEP_ALIVE)) as server:
        sent = send_around(server.base_url, idles, at_once=8)
        lost = check(server, sent)
    print(f"{len(lost)} of {len(sent)} lost: {lost}")  # noqa: T201
    assert len(lost) <= len(sent) * 0.05


def test_calls_after_the_close_are_never_lost(server: RunningServer) -> None:
    """Also where the close came just before the call, with a FIN or with a RST."""
    with (
        FaultProxy(server.base_url) as proxy,
        ors_gym.ORSClient(proxy.url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        session.get_prompt()
        for number in range(1, 41):
            proxy.plan(faults=[HangUp(0.0, reset=number % 2 == 0)])
            text = session.call_tool("count", {})["blocks"][0]["text"]
            assert text == str(number)
            proxy.wait_until_done()
            while proxy.drop_idle():
                pass
        assert len(proxy.requests("/call")) == 40
        assert server.runs("count", session=session.session_id) == 40


LEAVE = """
import ors_gym
client = ors_gym.ORSClient({url!r})
session = client.session("contract", split="train", index=0, setup_timeout=1.5)
try:
    session.open()
except ors_gym.ConnectionFailedError:
    print("unanswered")
"""


@pytest.mark.slow
def test_sessions_of_a_lost_create_are_deleted_at_exit(server: RunningServer) -> None:
    with FaultProxy(server.base_url) as proxy:
        proxy.plan("/create", [Reset(Point.BEFORE_REPLY)], then="forever")
        done = run_python("-c", LEAVE.format(url=proxy.url))
        assert done.stdout == "unanswered\n", done.stderr
        tried = [r.session_id for r in proxy.requests("/create") if r.json.get("split")]
        # A fresh id each time, and each deleted at once and once more at exit.
        assert len(tried) >= 2
        assert len(set(tried)) == len(tried)
        deleted = [request.session_id for request in proxy.requests("/delete")]
        assert all(deleted.count(session) == 2 for session in tried)
    for session in tried:
        server.wait_for("teardown", 1, session=session)
    assert not server.open_sessions() & set(tried)


SESSIONS = 200
ROUNDS = 3


def pings(server: ScriptedServer) -> Counter[str]:
    found = [r.session_id or "" for r in list(server.requests) if r.path == "/ping"]
    return Counter(found)


def test_many_idle_sessions_are_pinged_in_turn() -> None:
    with scripted_ors() as server, ors_gym.ORSClient(server.url) as client:
        client._server.ping_every = 0.5
        idle = [
            client.session("box", split="train", index=0).open()
            for _ in range(SESSIONS)
        ]
        for session in idle:
            # So that closing deletes each once, and nothing is left to the background,
            # whose deletes would keep asking a server that is gone.
            session.get_prompt()
        # The first sessions were opened earlier, and pinged in the meantime.
        before = pings(server)
        deadline = time.monotonic() + 60
        pause = threading.Event()
        while len(counts := pings(server) - before) < SESSIONS or (
            min(counts.values()) < ROUNDS
        ):
            assert time.monotonic() < deadline
            pause.wait(0.05)
        # None is pinged for another's sake.
        assert max(counts.values()) <= 3 * ROUNDS
        used = {r.connection for r in list(server.requests) if r.path == "/ping"}
        assert len(used) < SESSIONS / 2
        for session in idle:
            session.close()
