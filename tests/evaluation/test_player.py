"""How many episodes are played at once, where the server refuses more sessions."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ors_gym.evaluation import evaluate
from ors_gym.evaluation._player import Pace
from ors_gym.protocol._retries import Retry
from tests.testing.small_server import Answer, Sums, serving

MOST = 4


class Busy(Sums):
    """Answers 429 where more than a few sessions would be open at once."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.places: set[str] = set()
        self.refusals = 0

    def post(self, path: str, session_id: str, body: dict[str, Any]) -> Answer:
        with self.lock:
            if path == "/create" and len(self.places) >= MOST:
                self.refusals += 1
                return 429, {"detail": "too many sessions"}
            if path == "/create":
                self.places.add(session_id)
        answer = super().post(path, session_id, body)
        if path == "/delete":
            with self.lock:
                self.places.discard(session_id)
        return answer


def test_every_episode_is_played_though_the_server_says_429() -> None:
    busy = Busy()
    with serving(busy) as base_url:
        found = evaluate(
            base_url,
            "sums",
            range(3),
            lambda episode: {"tool": "submit", "input": {"answer": "2"}},
            episodes_per_task=20,
            max_concurrent=16,
            split="train",
            progress=False,
        )
    assert found.outcomes == 60
    assert found.success_rate == 1.0
    # It asks for less after the first refusals, and does not go on hammering.
    assert 0 < busy.refusals < 60
    assert not busy.sessions


def test_the_pace_halves_once_per_burst_and_recovers():
    pace = Pace(16)
    busy = Retry("POST /create", "status 429", 1, 0.1)
    for _ in range(10):
        pace.note(busy)
    assert pace.limit == 8
    pace.note(Retry("POST /create", "reset", 1, 0.1))
    assert pace.limit == 8
    for _ in range(8):
        pace.end()
    pace.note(busy)
    assert pace.limit == pytest.approx(8.125 / 2)
    for _ in range(500):
        pace.end()
    assert pace.limit == 16
