"""A training loop whose server is killed and restarted: every reward was paid."""

import random
import threading
from collections import Counter
from typing import Any, Self

import pytest

import ors_gym
from tests.support.servers.process import RunningServer, start_server

ADD = {"tool": "add", "input": {"a": 1, "b": 2}}


class Restarter:
    """Restarts a server now and then, but never before it has answered a call again.

    On a busy machine it could otherwise be down for longer than any client waits.
    """

    def __init__(self, server: RunningServer, seconds: float, seed: int) -> None:
        self._server = server
        self._seconds = seconds
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.answered = threading.Event()
        self.restarts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.answered.set()
        self._thread.join(timeout=60)

    def _work(self) -> None:
        while not self._stop.wait(self._seconds * (0.5 + self._random.random())):
            self.answered.wait(60)
            self._server.restart()
            self.answered.clear()
            self.restarts += 1


def train(
    env: ors_gym.ORSEnv, restarter: Restarter, episodes: int, restarts: int
) -> tuple[Counter[str], int]:
    """Return what ended the episodes, and how many calls showed a result."""
    ends: Counter[str] = Counter()
    shown = 0
    while ends["limit"] < episodes or restarter.restarts < restarts:
        env.reset()
        while True:
            _, reward, terminated, truncated, info = env.step(ADD)
            if info["error_kind"]:
                assert (reward, terminated, truncated) == (0.0, False, True)
                ends[info["error_kind"]] += 1
                break
            assert reward == 0.5
            shown += 1
            restarter.answered.set()
            if truncated:
                ends["limit"] += 1
                break
    return ends, shown


def check(episodes: int, restarts: int, steps: int, seconds: float) -> None:
    with start_server("ors-sdk-0.1.0") as server:
        limits: Any = {"call_timeout": 20, "setup_timeout": 60}
        limits |= {"on_error": "truncate", "max_episode_steps": steps}
        env = ors_gym.ORSEnv("contract", server.base_url, **limits)
        env.reset(seed=0)
        with Restarter(server, seconds, seed=1) as restarter:
            ends, shown = train(env, restarter, episodes, restarts)
        env.close()
        outages = {"session_lost", "ambiguous_call", "timeout", "connection"}
        assert set(ends) <= outages | {"limit"}
        # A result that was shown was paid; a run that was paid may not be shown.
        runs = server.runs("add")
        assert shown <= len(server.log("done", tool="add")) <= runs
        assert runs <= shown + sum(ends.values()) - ends["limit"]


@pytest.mark.slow
def test_a_server_that_restarts() -> None:
    check(episodes=4, restarts=3, steps=20, seconds=1.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_restarts_through_thousands_of_episodes() -> None:
    check(episodes=2000, restarts=3, steps=5, seconds=3.0)


def test_an_outage_raises_unless_told_otherwise() -> None:
    with start_server("ors-sdk-0.1.0") as server:
        env = ors_gym.ORSEnv("contract", server.base_url)
        env.reset(seed=0)
        server.restart()
        with pytest.raises(ors_gym.SessionLostError, match="open a new session"):
            env.step(ADD)
        with pytest.raises(ors_gym.EpisodeOverError, match="session_lost"):
            env.step(ADD)
        env.reset()
        assert env.step(ADD)[1] == 0.5
        env.close()
