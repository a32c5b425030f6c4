"""How many episodes are played at once, where the server refuses more sessions."""

import asyncio
import concurrent.futures
import functools
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import evaluate, parallel_evaluate
from ors_gym.protocol._retries import Retry
from ors_gym.rollout import Episode, Group, Rules, _scheduler, stream_groups
from ors_gym.rollout._concurrency import AdaptiveLimit, Gate
from tests.testing.small_server import Answer, Sums, serving

MOST = 4
CAPACITY = 10
SUBMIT = {"tool": "submit", "input": {"answer": "2"}}


class Busy(Sums):
    """Answers 429 where more than a few sessions would be open at once."""

    most = MOST

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.places: set[str] = set()
        self.refusals = 0
        self.refuse_next = False  # whether the next /create is refused in any case

    def post(self, path: str, session_id: str, body: dict[str, Any]) -> Answer:
        with self.lock:
            full = self.refuse_next or len(self.places) >= self.most
            if path == "/create" and full:
                self.refuse_next = False
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
        work: Any = (base_url, "sums", range(3), lambda episode: SUBMIT)
        options: Any = {"episodes_per_task": 20, "progress": False}
        found = evaluate(*work, split="train", max_concurrent=16, **options)
    assert (found.outcomes, found.success_rate) == (60, 1.0)
    # It asks for less after the first refusals, and does not go on hammering.
    assert 0 < busy.refusals < 60
    assert not busy.sessions


class CountingGate(Gate):
    def __init__(self, limit: AdaptiveLimit) -> None:
        super().__init__(limit)
        self.noted = 0
        gates.append(self)

    def note(self, retry: Retry) -> None:
        super().note(retry)
        self.noted += 1


gates: list[CountingGate] = []


class Workers(Sums):
    """Serves so many requests at once; the others wait in line."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.random = random.Random(0)
        self.workers = concurrent.futures.ThreadPoolExecutor(capacity)
        self.present = 0
        self.seen: list[int] = []
        """How many requests were served or waited, when each arrived."""

    @property
    def thinks(self) -> float:  # type: ignore[override]  # no two calls take equally long
        return self.random.uniform(0.05, 0.15)

    def post(self, path: str, session_id: str, body: dict[str, Any]) -> Answer:
        self.present += 1
        self.seen.append(self.present)
        try:
            return self.workers.submit(super().post, path, session_id, body).result()
        finally:
            self.present -= 1


class Roomy(Busy):
    """As `Busy`, with as many places as there are workers in the other one."""

    most = CAPACITY
    thinks = 0.05


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 4 * CAPACITY], ids=["below", "above"])
@pytest.mark.parametrize("by_latency", [True, False], ids=["latency", "429"])
def test_the_capacity_of_a_server_is_found_from_both_sides(
    monkeypatch, first, by_latency
):
    limits: list[int] = []

    class Watched(AdaptiveLimit):
        def end(self) -> None:
            super().end()
            limits.append(int(self.limit))

    monkeypatch.setattr(
        _scheduler, "AdaptiveLimit", functools.partial(Watched, first=first)
    )

    async def think_first(episode: Episode) -> dict[str, Any]:
        think = {"tool": "think", "input": {}}
        return think if len(episode.steps) < 3 else SUBMIT

    server = Workers(CAPACITY) if by_latency else Roomy()
    with serving(server) as base_url:
        found = evaluate(
            *(base_url, "sums", range(3), think_first),
            split="train",
            episodes_per_task=200,
            max_concurrent=4 * CAPACITY,
            adapt_to_latency=by_latency,
            progress=False,
        )
    assert found.outcomes == 600
    # An episode is not always at the server, so its requests are counted there.
    seen = server.seen if isinstance(server, Workers) else limits
    later = seen[len(seen) // 2 :]
    assert 0.8 * CAPACITY <= sum(later) / len(later) <= 1.2 * CAPACITY


def test_of_two_evaluations_on_one_client_each_keeps_its_limit(monkeypatch):
    """The second is still told of 429 after the first, which began before, ended."""
    monkeypatch.setattr(_scheduler, "Gate", CountingGate)
    gates.clear()
    busy = Busy()

    async def evaluate_both(base_url: str) -> None:
        first_plays, both_play = asyncio.Event(), asyncio.Event()
        first_has_ended = asyncio.Event()

        async def wait_for_the_second(_: Episode) -> dict[str, Any]:
            first_plays.set()
            await both_play.wait()
            return SUBMIT

        async def wait_for_the_end_of_the_first(_: Episode) -> dict[str, Any]:
            both_play.set()
            await first_has_ended.wait()
            return SUBMIT

        async with AsyncORSClient(base_url) as client:
            evaluate_sums = functools.partial(
                parallel_evaluate, client, "sums", [0], split="train", progress=False
            )
            first = asyncio.create_task(evaluate_sums(wait_for_the_second))
            await first_plays.wait()
            many: Any = {"episodes_per_task": 40, "max_concurrent": 16}
            work = evaluate_sums(wait_for_the_end_of_the_first, **many)
            second = asyncio.create_task(work)
            assert (await first).outcomes == 1
            refused, noted = busy.refusals, gates[1].noted
            busy.refuse_next = True
            first_has_ended.set()
            assert (await second).outcomes == 40
            assert busy.refusals > refused
            assert gates[1].noted > noted

    with serving(busy) as base_url:
        asyncio.run(evaluate_both(base_url))


class Factory:
    """Makes a policy that submits, after it failed a few times."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError("no model yet")
        return lambda _: SUBMIT


def play_group(factory: Callable[[], Any]) -> Group:
    async def play(base_url: str) -> Group:
        groups = stream_groups(
            *(base_url, "sums", [0]),
            policy_factory=factory,
            split="train",
            n=1,
            attempts=3,
        )
        async with asyncio.timeout(30), groups:
            return await anext(groups)

    with serving(Sums()) as base_url:
        return asyncio.run(play(base_url))


def test_an_attempt_whose_policy_could_not_be_made_has_no_outcome():
    [episode] = play_group(Factory(failures=2))
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.0)
    told = [(one.kind, one.error) for one in episode.attempts]
    assert told == [("policy", "no model yet")] * 2
    with pytest.raises(OSError, match="no model yet"):
        play_group(Factory(failures=3))


def test_an_attempt_whose_policy_fails_at_its_end_has_no_outcome():
    class Failing:
        def __call__(self, _: Episode) -> Any:
            return SUBMIT

        def end_episode(self, episode: Episode) -> None:
            if len(episode.attempts) < 2:
                raise OSError("no disk")

    [episode] = play_group(Failing)
    assert [one.error for one in episode.attempts] == ["no disk"] * 2
    assert episode.total_reward == 1.0


@pytest.mark.parametrize(("least", "most"), [(0, 8), (9, 8), (1, 0)])
def test_bounds_that_hold_no_number(least: int, most: int) -> None:
    def make_policy() -> Any:
        raise AssertionError

    with pytest.raises(InvalidRequestError, match="_concurrent"):
        _scheduler.Settings(
            env_name="math",
            make_policy=make_policy,
            rules=Rules(),
            min_concurrent=least,
            max_concurrent=most,
            env_arguments={},
        )
