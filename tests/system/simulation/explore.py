"""Every sequence of faults, and many random ones."""

from __future__ import annotations

import dataclasses
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random

from ors_gym.protocol._replies import BodyReader, StreamReader
from tests.system.simulation.episode import Episode, Report, random_episode
from tests.system.simulation.faults import Fault
from tests.system.simulation.player import Call, Part
from tests.system.simulation.world import ViolationError

__all__ = [
    "SCENARIOS",
    "Tally",
    "checked",
    "endless",
    "explain",
    "explore",
    "play_random",
    "sample",
]

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
}
"""Episodes to which every sequence of faults is done."""


@dataclasses.dataclass(slots=True)
class Tally:
    """What many episodes came to."""

    episodes: int = 0
    exchanges: int = 0
    calls: int = 0
    shown: int = 0
    runs: int = 0
    seconds: float = 0.0
    left: int = 0
    errors: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, report: Report) -> None:
        """Count an episode."""
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

    Args:
        scenario: The episode.
        depth: How many faults there are at most.
        faults: Those that are given.

    Yields:
        Each episode that is different, and what came of it.

    Raises:
        ViolationError: If the client broke its contract; with the episode's trace.
    """
    given = dict(faults or {})
    episode = dataclasses.replace(scenario, faults=given)
    report = checked(episode)
    yield episode, report
    yield from _explore_further(scenario, depth, given, report)


def _explore_further(
    scenario: Episode, depth: int, given: dict[int, Fault], report: Report
) -> Iterator[tuple[Episode, Report]]:
    if depth == 0:
        return
    for number in range(max(given, default=-1) + 1, report.exchanges):
        seen = {_details(report)}
        for fault in Fault:
            faults = {**given, number: fault}
            episode = dataclasses.replace(scenario, faults=faults)
            spoilt = checked(episode)
            yield episode, spoilt
            if depth == 1:
                continue
            details = _details(spoilt)
            if details not in seen:
                seen.add(details)
                yield from _explore_further(scenario, depth - 1, faults, spoilt)


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


def endless(scenario: Episode) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with each fault at all exchanges from each one on.

    Args:
        scenario: The episode.

    Yields:
        Each episode, and what came of it.

    Raises:
        ViolationError: If the client broke its contract; with the episode's trace.
    """
    for first in range(checked(scenario).exchanges):
        for fault in Fault:
            episode = dataclasses.replace(scenario, forever=(first, fault))
            yield episode, checked(episode)


def sample(scenario: Episode, count: int) -> Iterator[tuple[Episode, Report]]:
    """Play an episode with some of the sequences of three faults.

    Args:
        scenario: The episode.
        count: How many.

    Yields:
        Each episode, and what came of it.

    Raises:
        ViolationError: If the client broke its contract; with the episode's trace.
    """
    random = Random(0)
    most = checked(scenario).exchanges + 2
    for _ in range(count):
        numbers = random.sample(range(most), 3)
        faults = {number: random.choice(list(Fault)) for number in numbers}
        episode = dataclasses.replace(scenario, faults=faults)
        yield episode, checked(episode)


def play_random(first: int, count: int) -> Tally:
    """Play random episodes.

    Args:
        first: The seed of the first.
        count: How many.

    Returns:
        What they came to.

    Raises:
        ViolationError: If the client broke its contract; with the seed and trace.
    """
    tally = Tally()
    for seed in range(first, first + count):
        tally.add(checked(random_episode(seed)))
    return tally


def checked(episode: Episode) -> Report:
    """Play an episode; a failure carries its trace."""
    try:
        return episode.play()
    except Exception as error:
        raise ViolationError(f"{error}\n{explain(episode)}") from error


def explain(episode: Episode) -> str:
    """Play an episode that fails, and tell what happened in it."""
    trace: list[str] = []
    try:
        episode.play(traced=trace)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        trace.append(traceback.format_exc(limit=-3))
    return "\n".join([str(episode), *trace])
