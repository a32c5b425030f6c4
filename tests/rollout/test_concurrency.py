"""How many episodes are played at once, step by step.

What this comes to before a server is in ``tests/system/simulation``.
"""

import asyncio

import pytest

from ors_gym.protocol._retries import Retry
from ors_gym.rollout._concurrency import AdaptiveLimit, Gate

pytestmark = pytest.mark.unit


def end(limit: AdaptiveLimit, count: int) -> None:
    """Let episodes end while as many are under way as may be."""
    for _ in range(count):
        while limit.has_room:
            limit.begin()
        limit.end()


def test_a_burst_of_refusals_cuts_it_once_and_at_most_to_a_half():
    limit = AdaptiveLimit(20)
    limit.note_refusal(1, 0)
    assert limit.limit == 18
    # The same requests again, and further ones.
    for attempt in (2, 3, 1, 1):
        limit.note_refusal(attempt, 0)
    assert limit.limit == 16
    for _ in range(100):
        limit.note_refusal(1, 0)
    assert limit.limit == 10
    end(limit, 18)
    assert limit.limit == pytest.approx(10.1)
    limit.note_refusal(7, 0)
    assert limit.limit == pytest.approx(10.1 * 0.9)


def test_it_rises_by_one_for_as_many_as_end_while_it_is_used():
    limit = AdaptiveLimit(20, first=4)
    end(limit, 4)
    assert limit.limit == pytest.approx(5, abs=0.2)
    end(limit, 500)
    assert limit.limit == 20
    limit = AdaptiveLimit(20, first=4)
    for _ in range(500):
        limit.begin()
        limit.end()
    assert limit.limit == 4


def test_it_does_not_rise_while_a_refused_request_waits():
    now = 0.0
    limit = AdaptiveLimit(20, first=10, clock=lambda: now)
    limit.note_refusal(1, 5.0)
    end(limit, 100)
    assert limit.limit == 9
    now = 5.0
    end(limit, 100)
    assert limit.limit > 12


def test_it_stays_above_the_least():
    limit = AdaptiveLimit(20, 6)
    for _ in range(50):
        limit.note_refusal(1, 0)
        end(limit, 20)
    assert limit.limit >= 6


@pytest.mark.parametrize(
    ("usual", "later", "cut"),
    [(0.1, 0.19, False), (0.1, 0.3, True), (0.0005, 0.005, False), (0.001, 0.02, True)],
)
@pytest.mark.parametrize("by_latency", [True, False])
def test_round_trips_that_take_much_longer_cut_it(usual, later, cut, by_latency):
    limit = AdaptiveLimit(8, by_latency=by_latency)
    for seconds in (usual, later):
        for _ in range(8):
            limit.note_round_trip(seconds)
            end(limit, 1)
    assert limit.limit == (8 * 0.82 if cut and by_latency else 8)


def test_episodes_wait_for_room_and_all_begin_once_the_run_is_over():
    async def main() -> None:
        gate = Gate(AdaptiveLimit(2))
        waiting = [asyncio.create_task(gate.begin()) for _ in range(5)]
        await asyncio.sleep(0)
        assert sum(one.done() for one in waiting) == 2
        gate.note(Retry("POST /create", "reset", 1, 0.1))
        assert gate.limit.limit == 2
        gate.note(Retry("POST /create", "status 429", 1, 0.1))
        assert gate.limit.limit < 2
        gate.end()
        gate.end()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(one.done() for one in waiting) == 3
        gate.open()
        await asyncio.gather(*waiting)

    asyncio.run(main())
