"""Many idle sessions are pinged evenly, and cost few connections."""

from __future__ import annotations

import threading
import time
from collections import Counter

import ors_gym
from tests.support.proxy.scripted import ScriptedServer
from tests.system.faults.scripted_ors import scripted_ors

SESSIONS = 200
ROUNDS = 4


def pings(server: ScriptedServer) -> Counter[str]:
    found = [r.session_id or "" for r in list(server.requests) if r.path == "/ping"]
    return Counter(found)


def test_many_idle_sessions_are_pinged_in_turn() -> None:
    with scripted_ors() as server, ors_gym.ORSClient(server.url) as client:
        client.link.ping_every = 1.0
        idle = [
            client.session("box", split="train", index=0).open()
            for _ in range(SESSIONS)
        ]
        deadline = time.monotonic() + 60
        pause = threading.Event()
        while min((pings(server)[s.session_id] for s in idle), default=0) < ROUNDS:
            assert time.monotonic() < deadline
            pause.wait(0.05)
        counts = pings(server)
        assert len(counts) == SESSIONS
        # The first sessions were opened earlier; none is pinged for another's sake.
        assert max(counts.values()) <= 3 * ROUNDS
        used = {r.connection for r in list(server.requests) if r.path == "/ping"}
        assert len(used) < SESSIONS / 2
        for session in idle:
            session.close()
