"""Groups of rollouts: which begins next, when one is over, which is handed over next.

`GroupPlan` decides it all and does no I/O. It knows neither clock nor event loop, so
that a stream and a test in virtual time follow the same rules.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, overload

from ors_gym.env._task_order import Task
from ors_gym.errors import IncompleteGroupError, InvalidRequestError
from ors_gym.rollout._episode import Episode
from ors_gym.rollout._planned_rollout import Planned

Incomplete: TypeAlias = Literal["keep", "drop", "raise"]
"""What becomes of a group that lacks outcomes."""

_REMEMBERED: Final = 8
"""Versions whose groups are counted to learn how many are handed over in one."""


class Group(Sequence[Episode]):
    """The rollouts of one task, as a sequence of those that have an outcome.

    Args:
        task: The task as it was given to the stream.
        n: How many outcomes a complete group has.
        number: Which group of the stream it is, in the order in which they began.
        version: What ``version()`` returned when it began.

    Example:
        >>> group = Group(7, n=2)
        >>> group.episodes.append(Episode("math", task_index=7, total_reward=1.0))
        >>> len(group), group.rewards, group.complete
        (1, [1.0], False)
    """

    def __init__(
        self, task: Any, n: int, *, number: int = 0, version: Any = None
    ) -> None:
        self.task = task
        """The task as it was given to the stream. A task spec holds the answer."""
        self.n = n
        """How many outcomes it was to have."""
        self.number = number
        """Which group of the stream it is, in the order in which they began."""
        self.version = version
        """The version of the weights when it began, so the oldest in it."""
        self.episodes: list[Episode] = []
        """The rollouts with an outcome, by their numbers once it is over."""
        self.lost: list[Episode] = []
        """The rollouts without one, after all their attempts."""
        self.staleness: int | None = None
        """How many versions old it was when it was handed over; None where ``version``
        returns no integer."""
        self.kept = False
        """Whether an earlier run played it, so that it was read from the output."""

    @property
    def complete(self) -> bool:
        """Whether it has all its outcomes."""
        return len(self.episodes) == self.n

    @property
    def rewards(self) -> list[float]:
        """The rewards of its episodes."""
        return [episode.total_reward or 0.0 for episode in self.episodes]

    @overload
    def __getitem__(self, place: int) -> Episode: ...
    @overload
    def __getitem__(self, place: slice) -> list[Episode]: ...
    def __getitem__(self, place: int | slice) -> Episode | list[Episode]:
        return self.episodes[place]

    def __len__(self) -> int:
        return len(self.episodes)

    def __repr__(self) -> str:
        what = f"{len(self)} of {self.n} outcomes"
        return f"<Group {self.number} of task {self.task!r:.60}: {what}>"


@dataclasses.dataclass(eq=False, slots=True)
class Rollout:
    """One rollout of a group that is under way."""

    group: OpenGroup
    planned: Planned


@dataclasses.dataclass(eq=False, slots=True)
class OpenGroup:
    """A group under way: how many of its rollouts have not ended, and which play."""

    group: Group
    task: Task
    left: int
    playing: set[Rollout] = dataclasses.field(default_factory=set)


class GroupPlan:
    """The groups of a stream: begun, under way, over and waiting to be handed over.

    Args:
        most_ready: No group begins while this many wait to be handed over.
        pacing: Which also decides when one may begin, and which is handed over first.
        incomplete: What becomes of a group that lacks outcomes.
    """

    def __init__(
        self, most_ready: int, pacing: Pacing, incomplete: Incomplete = "keep"
    ) -> None:
        self._most_ready = most_ready
        self._pacing = pacing
        self._incomplete = incomplete
        self._begun = 0
        self.open: dict[Group, OpenGroup] = {}
        """The groups under way."""
        self._waiting: deque[Rollout] = deque()
        self._ready: list[Group] = []

    @property
    def is_empty(self) -> bool:
        """Whether no group is under way or waits to be handed over."""
        return not (self.open or self._ready)

    def may_begin(self, *, awaited: bool) -> bool:
        """Say whether one more group may begin; ``awaited``: somebody waits for one."""
        if len(self._ready) >= self._most_ready:
            return False
        return self._pacing.may_begin(awaited=awaited)

    def new_group(self, task: Any, n: int) -> Group:
        """Return the group that begins next."""
        group = Group(task, n, number=self._begun, version=self._pacing.version)
        self._begun += 1
        return group

    def begin(self, group: Group, rollouts: Sequence[Planned]) -> None:
        """Let a group begin; one with all its outcomes is over at once."""
        if group.kept:
            self._ready.append(group)
            return
        self._pacing.begin(group.version)
        open_group = self.open[group] = OpenGroup(
            group, rollouts[0].task, len(rollouts)
        )
        self._waiting.extend(Rollout(open_group, planned) for planned in rollouts)

    def next_rollout(self) -> Rollout | None:
        """Return a rollout to play of a group that has begun, the oldest first."""
        while self._waiting:
            rollout = self._waiting.popleft()
            if rollout.group.group in self.open:
                rollout.group.playing.add(rollout)
                return rollout
        return None

    def end(self, rollout: Rollout, episode: Episode) -> bool:
        """Take a rollout that was played; return whether its group is over with it."""
        open_group, group = rollout.group, rollout.group.group
        open_group.playing.discard(rollout)
        if group not in self.open:
            return False  # it was cancelled
        if episode.total_reward is None:
            group.lost.append(episode)
        else:
            group.episodes.append(episode)
        open_group.left -= 1
        if open_group.left and not group.complete:
            return False
        del self.open[group]
        for episodes in (group.episodes, group.lost):
            episodes.sort(key=lambda one: one.number)
        return True

    def is_wanted(self, group: Group) -> bool:
        """Say whether a group that is over is handed over.

        Raises:
            IncompleteGroupError: If it lacks outcomes, with ``incomplete="raise"``.
        """
        if group.complete or self._incomplete == "keep":
            return True
        if self._incomplete == "raise":
            raise _explain(group)
        self._pacing.forget(group.version)
        return False

    def finish(self, group: Group) -> None:
        """Let a group that is over wait to be handed over."""
        self._ready.append(group)

    def cancel(self, group: Group) -> Sequence[Rollout]:
        """Give a group up; return its rollouts that are being played."""
        if group in self._ready:
            self._ready.remove(group)
            if not group.kept:
                self._pacing.forget(group.version)
        open_group = self.open.pop(group, None)
        if open_group is None:
            return ()
        self._pacing.forget(group.version)
        return tuple(open_group.playing)

    def hand_over(self) -> Group | None:
        """Return the group that ended first of those that may be handed over now."""
        latest = self._pacing.latest()
        for place, group in enumerate(self._ready):
            if group.kept or latest is None or group.version <= latest:
                del self._ready[place]
                if not group.kept:
                    self._pacing.forget(group.version)
                group.staleness = self._pacing.hand_over(group.version)
                return group
        return None


def _explain(group: Group) -> IncompleteGroupError:
    lost = group.lost[0]
    error = IncompleteGroupError(
        f"the group of task {lost.task_index} has {len(group)} of {group.n} outcomes. "
        f"A rollout of it was lost after {len(lost.attempts) + 1} attempts: "
        f"{lost.error_kind}: {lost.error}"
    )
    error.__cause__ = lost.cause
    return error


class Pacing:
    """Paces groups so that each is at most ``limit`` versions old when handed over.

    No group is dropped for being late: that would drop the longest ones and bias
    training to short episodes. So a group begins only if all groups that are not yet
    handed over can still be in time. That depends on how many are handed over in one
    version: ``per_version``, or the least number seen lately; within the first version,
    the number handed over so far, at least 1. A group that is over waits if handing it
    over would make an older one late.

    Args:
        limit: The most versions; None for no limit.
        per_version: The least number of groups handed over between two versions.
    """

    def __init__(self, limit: int | None, per_version: int | None = None) -> None:
        self._limit = limit
        self._given = per_version
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)
        self.version: Any = None
        """The latest version that was noted."""
        self._handed_over = 0
        """Groups handed over in this version."""
        self._waited_for: Counter[int] = Counter()
        """Groups not yet handed over, by the version in which they began."""

    def note(self, version: Any) -> None:
        """Take what ``version()`` returns.

        Raises:
            InvalidRequestError: If there is a limit, and it is no integer.
        """
        is_number = isinstance(version, int) and not isinstance(version, bool)
        if self._limit is not None and not is_number:
            raise InvalidRequestError(
                f"version() returned {version!r:.100}; max_staleness= needs an integer "
                "that rises with the weights"
            )
        if version == self.version:
            return
        if self._limit is not None and self.version is not None and self._handed_over:
            passed = max(1, version - self.version)
            self._seen.append(self._handed_over / passed)
        self.version, self._handed_over = version, 0

    @property
    def has_limit(self) -> bool:
        """Whether there is a limit, so that a new version may let more begin."""
        return self._limit is not None

    def may_begin(self, *, awaited: bool) -> bool:
        if self._limit is None:
            return True
        least = self._rate(awaited=awaited)
        now = max(math.floor(least) - self._handed_over, int(awaited))
        most = now + math.floor(least * self._limit)
        return self._waited_for.total() < most

    def _rate(self, *, awaited: bool) -> float:
        """Return how many groups are handed over in one version, at least."""
        if self._given is not None:
            return self._given
        if self._seen:
            return min(self._seen)
        return max(1, self._handed_over + awaited)

    def begin(self, version: Any) -> None:
        if self._limit is not None:
            self._waited_for[version] += 1

    def latest(self) -> int | None:
        """Return the version after which a group that began has to wait.

        None if no group has to wait. Handing over a later group now would
        make an older one late.
        """
        if self._limit is None:
            return None
        least = self._rate(awaited=True)
        left = max(0, math.floor(least) - self._handed_over - 1)
        earlier = 0
        for version in sorted(self._waited_for):
            earlier += self._waited_for[version]
            later = max(0, version + self._limit - self.version)
            if earlier > left + math.floor(least * later):
                return version
        return None

    def hand_over(self, began: Any) -> int | None:
        """Count a group as handed over; return how many versions old it is."""
        self._handed_over += 1
        known = isinstance(began, int) and isinstance(self.version, int)
        return self.version - began if known else None

    def forget(self, began: Any) -> None:
        """Count a group no longer as one that is waited for."""
        if self._limit is not None:
            self._waited_for[began] -= 1
            if not self._waited_for[began]:
                del self._waited_for[began]
