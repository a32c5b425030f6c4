"""How many episodes are played at once, before a server that has a capacity.

A queueing server in virtual time: so many requests are served at once, the others wait
in line, or are refused. Episodes open a session and call a slow tool a few times.
"""

import dataclasses
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pytest

from ors_gym.rollout._concurrency import AdaptiveLimit
from tests.system.simulation.virtual_time import VirtualClock

pytestmark = pytest.mark.unit

EPISODES: Final = 8_000
WARM_UP: Final = 4_000
"""Episodes before the limit is looked at."""
CALLS: Final = 5
ROUND_TRIP: Final = 0.002
"""Seconds of a request that runs no tool."""


@dataclasses.dataclass
class Server:
    """Serves ``capacity`` requests at once; None is as many as come."""

    clock: VirtualClock
    capacity: int | None
    busy: int = 0
    line: deque[tuple[float, Callable[[Any], None]]] = dataclasses.field(
        default_factory=deque
    )

    def serve(self, seconds: float, then: Callable[[Any], None]) -> None:
        if self.capacity is not None and self.busy >= self.capacity:
            self.line.append((seconds, then))
            return
        self.busy += 1
        self.clock.at(self.clock.now + seconds, self.done, then)

    def done(self, then: Callable[[Any], None]) -> None:
        self.busy -= 1
        if self.line:
            self.serve(*self.line.popleft())
        then(None)


@dataclasses.dataclass
class Sessions:
    """Refuses sessions beyond ``places``; a client tries again until there is one."""

    clock: VirtualClock
    places: int
    limit: AdaptiveLimit
    taken: int = 0
    refusals: int = 0

    def open(self, then: Callable[[Any], None], attempt: int = 1) -> None:
        if self.taken < self.places:
            self.taken += 1
            then(None)
            return
        self.refusals += 1
        delay = min(5.0, 0.05 * 2 ** (attempt - 1))
        self.limit.note_refusal(attempt, delay)
        self.clock.at(
            self.clock.now + delay, lambda _: self.open(then, attempt + 1), None
        )


@dataclasses.dataclass
class Clients:
    """Play episodes, one after another, as many at once as the limit allows."""

    limit: AdaptiveLimit
    clock: VirtualClock
    server: Server
    sessions: Sessions | None = None
    tool_seconds: float = 0.2
    later_tool_seconds: float = 0.0  # in the second half of the run
    thinking: float = 0.0
    spread: float = 0.5  # of a log-normal distribution of the tool's time
    dice: random.Random = dataclasses.field(default_factory=lambda: random.Random(1))
    begun: int = 0
    ended: int = 0
    limits: list[float] = dataclasses.field(default_factory=list)

    def run(self) -> float:
        """Play them all, and return the mean limit after the warm-up."""
        self.look()
        self.clock.drain()
        assert self.ended == EPISODES
        return sum(self.limits) / len(self.limits)

    def look(self) -> None:
        while self.begun < EPISODES and self.limit.has_room:
            self.begun += 1
            self.limit.begin()
            if self.sessions is None:
                self.open(None)
            else:
                self.sessions.open(self.open)

    def open(self, _: Any) -> None:
        since = self.clock.now

        def opened(_: Any) -> None:
            self.limit.note_round_trip(self.clock.now - since)
            self.call(CALLS)

        self.server.serve(ROUND_TRIP * self.dice.uniform(1, 1.5), opened)

    def call(self, left: int) -> None:
        if not left:
            self.end()
            return
        is_later = self.later_tool_seconds and self.ended > EPISODES / 2
        mean = self.later_tool_seconds if is_later else self.tool_seconds
        seconds = mean * self.dice.lognormvariate(-(self.spread**2) / 2, self.spread)
        thinking = self.dice.expovariate(1 / self.thinking) if self.thinking else 0
        self.clock.at(
            self.clock.now + thinking,
            lambda _: self.server.serve(seconds, lambda _: self.call(left - 1)),
            None,
        )

    def end(self) -> None:
        self.ended += 1
        if self.sessions is not None:
            self.sessions.taken -= 1
        self.limit.end()
        if self.ended > WARM_UP:
            self.limits.append(int(self.limit.limit))
        self.look()


def clients(limit: AdaptiveLimit, capacity: int | None, **options: Any) -> Clients:
    clock = VirtualClock()
    return Clients(limit, clock, Server(clock, capacity), **options)


BOTH_SIDES: Final = pytest.mark.parametrize("first", [1, 4.0], ids=["below", "above"])


@pytest.mark.slow
@BOTH_SIDES
@pytest.mark.parametrize("capacity", [8, 20, 64])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_it_finds_what_a_server_can_serve_by_its_round_trips(capacity, first, spread):
    start = 1 if first == 1 else 4 * capacity
    limit = AdaptiveLimit(4 * capacity, first=start, by_latency=True)
    found = clients(limit, capacity, spread=spread).run()
    assert 0.8 * capacity <= found <= 1.2 * capacity


@pytest.mark.slow
@BOTH_SIDES
@pytest.mark.parametrize("places", [10, 20, 64])
@pytest.mark.parametrize("tool_seconds", [0.2, 10.0])
def test_it_finds_how_many_sessions_a_server_allows(places, first, tool_seconds):
    start = 1 if first == 1 else 4 * places
    clock = VirtualClock()
    limit = AdaptiveLimit(4 * places, first=start, clock=lambda: clock.now)
    played = Clients(limit, clock, Server(clock, None), tool_seconds=tool_seconds)
    played.sessions = Sessions(played.clock, places, limit)
    found = played.run()
    assert 0.8 * places <= found <= 1.2 * places
    assert played.sessions.refusals < 2 * EPISODES


@BOTH_SIDES
def test_thinking_is_no_load(first):
    """A policy that thinks as long as a tool takes halves what an episode asks for."""
    limit = AdaptiveLimit(80, first=1 if first == 1 else 80, by_latency=True)
    found = clients(limit, 20, thinking=0.2).run()
    assert 0.8 * 40 <= found <= 1.2 * 40


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_a_slow_tool_is_not_taken_for_a_busy_server(spread):
    limit = AdaptiveLimit(64, first=8, by_latency=True)
    played = clients(limit, None, later_tool_seconds=5.0, spread=spread)
    found = played.run()
    assert found == 64


def test_it_stays_within_its_bounds():
    limit = AdaptiveLimit(64, 16, by_latency=True)
    played = clients(limit, 4)
    assert played.run() < 20
    assert min(played.limits) == 16
