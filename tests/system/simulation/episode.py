"""Whole episodes: what happens in one, chosen by hand or by a seed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from random import Random

from ors_gym.protocol._exchange import Send
from tests.system.simulation.client import Client
from tests.system.simulation.faults import Fault
from tests.system.simulation.network import Exchange, Network
from tests.system.simulation.player import Call, Part, Player
from tests.system.simulation.server import FLAVOURS, Server
from tests.system.simulation.world import ViolationError, World

__all__ = ["Episode", "Report", "random_episode"]

_FAULTS = tuple(Fault)


@dataclasses.dataclass(slots=True)
class Report:
    """What came of an episode in which the client kept its contract."""

    exchanges: int
    shown: int
    errors: list[str]
    faults: set[int]
    """The exchanges whose fault had an effect."""
    calls: int
    runs: int
    seconds: float
    played: list[Exchange]
    """The exchanges themselves."""
    left: int
    """Sessions that only the server's reaper takes."""


@dataclasses.dataclass(slots=True)
class Episode:
    """Everything that decides what happens.

    Args:
        flavour: Which server.
        parts: What each player does, all at once.
        faults: The fault of each exchange, by its number.
        forever: A fault of every exchange from a number on.
        chance: The probability of a fault for the others.
        restarts: When the server restarts, and for how long it is down.
        constructor: Seconds that constructors take.
        setup: Seconds that set-ups take.
        broken: Whether set-up raises.
        connected: Whether the client has asked already what the server speaks.
        seed: Of everything random.
        jitter: The most seconds that a request or a reply is late without a fault.
        replays_calls: Whether gateways replay tool calls too, which costs a run each.
        vocabulary: From how many of the faults one is drawn.
    """

    flavour: str = "openreward"
    parts: tuple[Part, ...] = (Part(),)
    faults: Mapping[int, Fault] = dataclasses.field(default_factory=dict)
    forever: tuple[int, Fault] | None = None
    chance: float = 0.0
    restarts: tuple[tuple[float, float], ...] = ()
    constructor: float = 0.01
    setup: float = 0.01
    broken: bool = False
    connected: bool = True
    seed: int = 0
    jitter: float = 0.0
    replays_calls: bool = False
    vocabulary: int = len(_FAULTS)

    def play(self, *, traced: list[str] | None = None) -> Report:
        """Play it.

        Args:
            traced: Takes the trace, if there is to be one.

        Returns:
            What happened.

        Raises:
            ViolationError: If the client broke its contract.
        """
        world = World(traced=traced is not None)
        if traced is not None:
            world.trace = traced
        random = Random(self.seed)
        server = Server(
            world,
            FLAVOURS[self.flavour],
            constructor=self.constructor,
            setup=self.setup,
            broken=self.broken,
        )

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

        network = Network(
            world,
            server,
            plan,
            lag=lag if self.jitter else None,
            replays_calls=self.replays_calls,
        )
        client = Client(world, network, random.random, connected=self.connected)
        for when, down in self.restarts:
            world.at(when, network.restart, down)
        players = [
            Player(client, server, part, f"player {number}", 100 * number)
            for number, part in enumerate(self.parts)
        ]
        world.run()
        seconds = world.now
        self._check(server, client, players)
        world.drain()
        self._check(server, client, players)
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

    def _check(self, server: Server, client: Client, players: list[Player]) -> None:
        """Check what can only be known when all is over."""
        runs = Counter(run.nonce for run in server.runs)
        for nonce, count in runs.items():
            if count > 1:
                raise ViolationError(f"call {nonce} was run {count} times")
        for player in players:
            for nonce in player.never:
                if runs[nonce]:
                    raise ViolationError(f"call {nonce} ran, and is said not to have")
        for session_id in server.living():
            if not client.doomed.get(session_id):
                raise ViolationError(f"session {session_id} was never deleted")


def random_episode(seed: int) -> Episode:
    """Make up an episode.

    Args:
        seed: Decides everything.

    Returns:
        The episode.
    """
    random = Random(seed)
    chance = random.random
    parts = tuple(_random_part(random) for _ in range(1 if chance() < 0.9 else 3))
    slow = chance() < 0.1
    restarts: tuple[tuple[float, float], ...] = ()
    if chance() < 0.15:
        down = random.choice((0.1, 2.0, 20.0))
        restarts = ((chance() * random.choice((0.1, 2.0, 60.0)), down),)
    return Episode(
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
