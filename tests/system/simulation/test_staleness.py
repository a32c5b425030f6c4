"""Which episodes reach training while the weights change, in virtual time.

Episodes take from 1 to 1000 seconds. A trainer takes groups as they are handed over,
and trains a while on each batch. Whatever the bound of staleness, the lengths of what
it trains on are distributed as those of what was started. Where old groups are thrown
away instead, the long ones are missing.
"""

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any, Final

import pytest

from ors_gym.env._task_order import Task
from ors_gym.rollout import Episode
from ors_gym.rollout._groups import Group, GroupPlan, Pacing, Rollout
from ors_gym.rollout._planned_rollout import Planned
from tests.support.slow_cases import mostly_slow
from tests.system.simulation.virtual_time import VirtualClock

pytestmark = pytest.mark.unit

IN_FLIGHT: Final = 64
N: Final = 2
BATCH: Final = 8
TRAINING_SECONDS: Final = 20.0
VERSIONS: Final = 100
WARM_UP: Final = 30
SEEDS: Final = range(20)
CRITICAL: Final = 1.358
"""The statistic is above it in 1 of 20 samples of one distribution."""


@dataclasses.dataclass
class Training:
    """A trainer and the rollouts that it is fed by."""

    plan: GroupPlan
    pacing: Pacing
    most: float  # versions; groups that are older when handed over are thrown away
    seed: int
    clock: VirtualClock = dataclasses.field(default_factory=VirtualClock)
    version: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    awaited: bool = True
    lengths: dict[Planned, float] = dataclasses.field(default_factory=dict)
    batch: list[Group] = dataclasses.field(default_factory=list)
    trained: list[Group] = dataclasses.field(default_factory=list)
    thrown_away: int = 0
    begun: int = 0

    def run(self) -> None:
        self.random = random.Random(self.seed)
        self.pacing.note(0)
        self.look()
        # Nothing is to happen any more after the last version.
        self.clock.drain()

    def look(self, _: Any = None) -> None:
        """Hand groups to the trainer, and begin what may begin."""
        while self.awaited and (group := self.plan.hand_over()) is not None:
            assert group.staleness is not None
            if group.staleness > self.most:
                self.thrown_away += 1
                continue
            self.batch.append(group)
            if len(self.batch) == BATCH:
                self.awaited = False
                when = self.clock.now + TRAINING_SECONDS
                self.clock.at(when, self.train, None)
        while self.in_flight < IN_FLIGHT and self.version < VERSIONS:
            rollout = self.plan.next_rollout()
            if rollout is not None:
                self.in_flight += 1
                length = 10 ** self.random.uniform(0, 3)
                self.lengths[rollout.planned] = length
                self.clock.at(self.clock.now + length, self.end, rollout)
            elif self.plan.may_begin(awaited=self.awaited):
                group = self.plan.new_group(self.begun, N)
                task = Task("train", self.begun)
                self.begun += 1
                self.plan.begin(group, [Planned(task, number) for number in range(N)])
            else:
                break

    def end(self, rollout: Rollout) -> None:
        self.in_flight -= 1
        planned = rollout.planned
        episode = Episode("env", planned.task.index, number=planned.number)
        if self.plan.end(rollout, episode):
            self.plan.finish(rollout.group.group)
        self.look()

    def train(self, _: Any) -> None:
        self.trained += self.batch
        self.batch = []
        self.awaited = True
        self.version += 1
        self.pacing.note(self.version)
        self.look()

    def trained_lengths(self) -> list[float]:
        """Return the lengths of what was trained after the first versions."""
        groups = self.trained[WARM_UP * BATCH : VERSIONS * BATCH]
        return [
            self.lengths[Planned(Task("train", group.task), number)]
            for group in groups
            for number in range(N)
        ]


def statistic(lengths: Sequence[float]) -> float:
    """Return Kolmogorov's, times the root of the size, to what lengths are drawn by."""
    size, worst = len(lengths), 0.0
    for place, length in enumerate(sorted(lengths)):
        share = math.log10(length) / 3
        worst = max(worst, (place + 1) / size - share, share - place / size)
    return worst * math.sqrt(size)


def train(limit: int | None, per_version: int | None, seed: int, most: float) -> Any:
    pacing = Pacing(limit, per_version)
    plan = GroupPlan(IN_FLIGHT // N, pacing)
    training = Training(plan, pacing, most, seed)
    training.run()
    return training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "per_version"), [(0, None), (1, BATCH), (4, None), (16, BATCH)]
)
def test_paced_groups_are_trained_as_they_were_started(limit, per_version):
    found = []
    for seed in SEEDS:
        training = train(limit, per_version, seed, math.inf)
        assert training.version >= VERSIONS
        assert max(group.staleness for group in training.trained) <= limit
        found.append(statistic(training.trained_lengths()))
    # 1 of 20 is to be expected, and more than 4 in 1 of 300 such tests.
    assert sum(one > CRITICAL for one in found) <= 4
    assert max(found) < 2.0


@pytest.mark.parametrize("n", [1, 8])
def test_log_normal_lengths_keep_all_places_busy(n):
    chance = random.Random(n)
    plan = GroupPlan(IN_FLIGHT // n, Pacing(None))
    clock = VirtualClock()
    in_flight, work = 0, 0.0

    def look() -> None:
        nonlocal in_flight, work
        while plan.hand_over() is not None:
            pass
        while in_flight < IN_FLIGHT and work < 100 * IN_FLIGHT:
            rollout = plan.next_rollout()
            if rollout is None:
                assert plan.may_begin(awaited=True)
                group = plan.new_group(0, n)
                plan.begin(group, [Planned(Task("", 0), number) for number in range(n)])
                continue
            in_flight += 1
            length = chance.lognormvariate(-0.5, 1.0)
            work += length
            clock.at(clock.now + length, end, rollout)

    busy_until = 0.0

    def end(rollout: Rollout) -> None:
        nonlocal in_flight, busy_until
        if in_flight == IN_FLIGHT:
            busy_until = clock.now
        in_flight -= 1
        if plan.end(rollout, Episode("env", number=rollout.planned.number)):
            plan.finish(rollout.group.group)
        look()

    look()
    clock.drain()
    # The mean length is 1, so this many would take that long on all places.
    assert busy_until >= 0.95 * work / IN_FLIGHT


@pytest.mark.slow
@pytest.mark.parametrize("limit", mostly_slow([1, 4]))
def test_thrown_away_groups_are_the_long_ones(limit):
    for seed in SEEDS:
        training = train(None, None, seed, limit)
        assert training.thrown_away > 0
        lengths = training.trained_lengths()
        assert statistic(lengths) > 2 * CRITICAL
        paced = train(limit, BATCH, seed, math.inf).trained_lengths()
        assert sum(lengths) / len(lengths) < 0.8 * sum(paced) / len(paced)
