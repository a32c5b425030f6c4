"""Episodes: what decides one, and many of them with every fault or at random."""

import dataclasses
import itertools
import math
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Self

from ors_gym.protocol._exchange import Send
from ors_gym.protocol._replies import BodyReader, StreamReader
from tests.system.simulation.client import Client
from tests.system.simulation.network import Closing, Exchange, Fault, Network
from tests.system.simulation.player import Call, Part, Player
from tests.system.simulation.server import FLAVOURS, Server
from tests.system.simulation.virtual_time import ViolationError, VirtualClock

_FAULTS = tuple(Fault)


@dataclasses.dataclass(slots=True)
class Report:
    """What came of an episode in which the client kept its contract."""

    exchanges: int
    shown: int
    errors: list[str]
    faults: set[int]  # the exchanges whose fault had an effect
    calls: int
    runs: int
    seconds: float
    played: list[Exchange]  # the exchanges themselves
    left: int  # sessions that only the server's reaper takes


@dataclasses.dataclass(slots=True)
class Episode:
    flavour: str = "openreward"
    parts: tuple[Part, ...] = (Part(),)
    faults: Mapping[int, Fault] = dataclasses.field(default_factory=dict)
    # A fault of every exchange from a number on.
    forever: tuple[int, Fault] | None = None
    chance: float = 0.0  # the probability of a fault for the other exchanges
    # When the server restarts, and for how many seconds it is down.
    restarts: tuple[tuple[float, float], ...] = ()
    constructor: float = 0.01
    setup: float = 0.01
    broken: bool = False
    connected: bool = True  # the client has asked already what the server speaks
    seed: int = 0
    # The most seconds that a request or a reply is late without a fault.
    jitter: float = 0.0
    # Gateways replay tool calls too, which costs a run each.
    replays_calls: bool = False
    vocabulary: int = len(_FAULTS)  # faults are drawn from the first so many
    # How the far end closes connections, and after how many seconds, one of which is
    # drawn for each reply.
    closing: Closing | None = None
    closes_after: tuple[float, ...] = ()
    exits_at: float | None = None  # when the client's process exits

    def play(self, *, traced: list[str] | None = None) -> Report:
        clock = VirtualClock(traced)
        random = Random(self.seed)
        flavour = FLAVOURS[self.flavour]
        server = Server(clock, flavour, self.constructor, self.setup, self.broken)

        def plan(number: int, send: Send) -> Fault | None:
            if number in self.faults:
                return self.faults[number]
            if self.forever is not None and number >= self.forever[0]:
                return self.forever[1]
            if self.chance and random.random() < self.chance:
                return random.choice(_FAULTS[: self.vocabulary])
            return None

        def lag() -> float:
            # Mostly little, so that episodes come to something.
            return self.jitter * float(random.random() ** 8)

        late = lag if self.jitter else None
        network = Network(clock, server, plan, late, self.replays_calls)
        if self.closing is not None:
            network.closing = self.closing
            network.closes_after = lambda: random.choice(self.closes_after)
        client = Client(clock, network, random.random, connected=self.connected)
        for when, down in self.restarts:
            clock.at(when, network.restart, down)
        players = [
            Player(client, server, part, f"player {number}", 100 * number)
            for number, part in enumerate(self.parts)
        ]
        if self.exits_at is not None:
            clock.at(self.exits_at, client.exit, None)
        clock.run()
        seconds = clock.now
        self._check(server, network, players)
        clock.drain()
        self._check(server, network, players)
        return Report(
            exchanges=len(network.exchanges),
            shown=sum(player.shown for player in players),
            errors=[type(error).__name__ for p in players for error in p.errors],
            faults={e.number for e in network.exchanges if e.fault is not None},
            calls=sum(len(part.calls) for part in self.parts),
            runs=len(server.runs),
            seconds=seconds,
            played=network.exchanges,
            left=len(server.living()),
        )

    def _check(self, server: Server, network: Network, players: list[Player]) -> None:
        """Check what can only be known when all is over."""
        runs = Counter(run.nonce for run in server.runs)
        for nonce, count in runs.items():
            if count > 1:
                raise ViolationError(f"call {nonce} was run {count} times")
        for player in players:
            for nonce in player.never:
                if runs[nonce]:
                    raise ViolationError(f"call {nonce} ran, and is said not to have")
        deletes = (each for each in network.exchanges if each.target == "/delete")
        deleted = {each.session_id for each in deletes}
        for session_id in server.living():
            if session_id not in deleted:
                raise ViolationError(f"session {session_id} was never deleted")


_AGES = ((0.002,), (0.05,), (1.0,), (5.0,), (0.0, 0.001, 0.002, 0.01, 0.1, 3.0, 60.0))


def random_episode(seed: int) -> Episode:
    random = Random(seed)
    chance = random.random
    parts = tuple(_random_part(random) for _ in range(1 if chance() < 0.9 else 3))
    slow = chance() < 0.1
    restarts: tuple[tuple[float, float], ...] = ()
    if chance() < 0.15:
        down = random.choice((0.1, 2.0, 20.0))
        restarts = ((chance() * random.choice((0.1, 2.0, 60.0)), down),)
    episode = Episode(
        flavour="openreward" if chance() < 0.5 else "ors-sdk",
        parts=parts,
        chance=random.choice((0.0, 0.05, 0.1, 0.2, 0.4)),
        restarts=restarts,
        constructor=random.choice((1.0, 20.0, 70.0)) if slow else 0.01,
        setup=random.choice((1.0, 30.0, 300.0)) if chance() < 0.1 else 0.01,
        broken=chance() < 0.03,
        connected=chance() < 0.95,
        seed=seed,
        jitter=random.choice((0.0, 0.0, 0.1, 3.0, 30.0)),
    )
    # Drawn last, so that older seeds mean what they meant.
    if chance() < 0.4:
        episode.closing = random.choice(list(Closing))
        episode.closes_after = random.choice(_AGES)
    if chance() < 0.1:
        episode.exits_at = chance() * random.choice((0.03, 3.0, 100.0))
    return episode


def _random_part(random: Random) -> Part:
    chance = random.random
    idle = 1000.0 if chance() < 0.01 else 0.0
    calls = tuple(
        Call(
            seconds=random.choice((2.0, 35.0, 130.0)) if chance() < 0.15 else 0.01,
            think=random.choice((2.0, 4.0)) if chance() < 0.15 else idle,
            raises=chance() < 0.1,
            finishes=chance() < 0.5,
            tool="nothing" if chance() < 0.05 else "play",
        )
        for _ in range(random.choice((1, 1, 2)))
    )
    unusual = chance()
    return Part(
        calls=calls,
        call_timeout=random.choice((5.0, 60.0, 600.0)),
        setup_timeout=random.choice((10.0, 120.0, 600.0)),
        resumes=chance() < 0.7,
        waits=chance() < 0.8,
        closed_at=chance() * 3 if unusual < 0.03 else None,
        cancelled_at=chance() * random.choice((0.03, 3.0)) if unusual > 0.96 else None,
    )


SHORT = Part(calls=(Call(finishes=True),))

SCENARIOS = {
    "short, openreward": Episode(flavour="openreward", parts=(SHORT,)),
    "short, ors-sdk": Episode(flavour="ors-sdk", parts=(SHORT,)),
    "openreward": Episode(flavour="openreward"),
    "ors-sdk": Episode(flavour="ors-sdk"),
    "unconnected": Episode(parts=(Part(calls=(Call(),)),), connected=False),
    "slow": Episode(
        parts=(Part(calls=(Call(seconds=35.0), Call(raises=True))),), setup=30.0
    ),
    "thoughtful": Episode(parts=(Part(calls=(Call(), Call(think=4.0))),)),
    "idle": Episode(parts=(Part(calls=(Call(), Call(think=50.0))),)),
    "closed by another": Episode(
        parts=(Part(calls=(Call(seconds=2.0),), closed_at=1.0),)
    ),
    "slow to construct": Episode(
        parts=(Part(calls=(Call(),), setup_timeout=30.0),), constructor=20.0
    ),
    **{
        f"closed {closing.name.lower()}": Episode(
            flavour="ors-sdk",
            parts=(Part(calls=(Call(), Call(seconds=2.0, finishes=True))),),
            closing=closing,
            # So soon that each request over a used connection is lost.
            closes_after=(0.0005,),
        )
        for closing in Closing
    },
    "closed and forgiven": Episode(
        parts=(Part(calls=(Call(), Call(think=400.0), Call())),),
        closing=Closing.ANYWAY,
        closes_after=(0.0005,),
    ),
}
"""Episodes to which every sequence of faults is done."""


@dataclasses.dataclass(slots=True)
class Tally:
    episodes: int = 0
    exchanges: int = 0
    calls: int = 0
    shown: int = 0
    runs: int = 0
    seconds: float = 0.0
    left: int = 0
    errors: Counter[str] = dataclasses.field(default_factory=Counter)

    def __iadd__(self, other: Self) -> Self:
        for field in dataclasses.fields(self):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)
        return self

    def add(self, report: Report) -> None:
        self.episodes += 1
        self.exchanges += report.exchanges
        self.calls += report.calls
        self.shown += report.shown
        self.runs += report.runs
        self.seconds += report.seconds
        self.left += report.left
        self.errors.update(report.errors)

    def __str__(self) -> str:
        errors = ", ".join(f"{name} {n:,}" for name, n in self.errors.most_common())
        return (
            f"{self.episodes:,} episodes, {self.exchanges:,} exchanges, "
            f"{self.seconds / 86400:,.1f} virtual days\n"
            f"{self.calls:,} calls, {self.runs:,} runs, {self.shown:,} results shown, "
            f"{self.left:,} sessions left to the reaper\n"
            f"{errors or 'no errors'}"
        )


def explore(
    scenario: Episode, depth: int, faults: Mapping[int, Fault] | None = None
) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with every sequence of faults at every exchange.

    Of faults that come to the same to the last detail, as those do that cut a reply of
    one piece here or there, only the first is followed by others. An exchange that
    never came, or a fault that had no effect, ends its branch.
    """
    given = dict(faults or {})
    episode = dataclasses.replace(scenario, faults=given)
    report = checked(episode)
    yield episode, report
    for number in range(max(given, default=-1) + 1, report.exchanges if depth else 0):
        yield from explore_at(scenario, depth, number, given)


def explore_at(
    scenario: Episode, depth: int, number: int, given: Mapping[int, Fault]
) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with every fault at one exchange, and what `explore` does then.

    Processes share the work by the first exchange that is hurt.
    """
    seen = {_details(checked(dataclasses.replace(scenario, faults=given)))}
    for fault in Fault:
        faults = {**given, number: fault}
        episode = dataclasses.replace(scenario, faults=faults)
        spoilt = checked(episode)
        yield episode, spoilt
        details = _details(spoilt)
        if depth > 1 and details not in seen:
            seen.add(details)
            for later in range(number + 1, spoilt.exchanges):
                yield from explore_at(scenario, depth - 1, later, faults)


def _details(report: Report) -> tuple[object, ...]:
    """Tell all that client and server saw of an episode."""
    details: list[object] = [*report.errors]
    for exchange in report.played:
        sink, outcome = exchange.send.sink, exchange.outcome
        assert outcome is not None
        details += (exchange.process.name, exchange.target, exchange.session_id)
        details += (exchange.started, exchange.arrived_at)
        details += (outcome.status, outcome.failure, outcome.headers)
        if isinstance(sink, StreamReader):
            details += (sink.result, sink.failed, sink.task_id, sink.body)
        elif isinstance(sink, BodyReader) and outcome.failure is None:
            details.append(sink.body)
    return tuple(details)


def moments(scenario: Episode) -> list[float]:
    """Name a time between any two events of an episode without faults."""
    times = {0.0}
    for exchange in checked(scenario).played:
        times |= {exchange.started, exchange.arrived_at, exchange.last}
    ordered = sorted(time for time in times if time < math.inf)
    return [*((a + b) / 2 for a, b in itertools.pairwise(ordered)), ordered[-1] + 1.0]


def endless(scenario: Episode) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with each fault at all exchanges from each one on."""
    for first in range(checked(scenario).exchanges):
        for fault in Fault:
            episode = dataclasses.replace(scenario, forever=(first, fault))
            yield episode, checked(episode)


def sample(scenario: Episode, count: int) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with some of the sequences of three faults."""
    random = Random(0)
    most = checked(scenario).exchanges + 2
    for _ in range(count):
        numbers = random.sample(range(most), 3)
        faults = {number: random.choice(list(Fault)) for number in numbers}
        episode = dataclasses.replace(scenario, faults=faults)
        yield episode, checked(episode)


def tally_of(played: Iterable[tuple[Episode, Report]]) -> Tally:
    tally = Tally()
    for _, report in played:
        tally.add(report)
    return tally


def play_random(first: int, count: int) -> Tally:
    episodes = map(random_episode, range(first, first + count))
    return tally_of((episode, checked(episode)) for episode in episodes)


def checked(episode: Episode) -> Report:
    try:
        return episode.play()
    except Exception as error:
        raise ViolationError(f"{error}\n{explain(episode)}") from error


def explain(episode: Episode) -> str:
    trace: list[str] = []
    try:
        episode.play(traced=trace)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        trace.append(traceback.format_exc(limit=-3))
    return "\n".join([str(episode), *trace])
