"""How many episodes are played at once: as many as the server takes, within bounds."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ors_gym.protocol._retries import Retry

_CUT: Final = 0.9
"""The limit is multiplied by this when a request is refused."""
_CUT_FOR_WAITS: Final = 0.82
"""The limit is multiplied by this when requests wait. Waiting is noticed later than a
refusal, when the limit has risen further."""
_LEAST_OF_A_BURST: Final = 0.5
"""The least share of the limit that is left, however many refusals come at once."""
_LEAST_ROUND_TRIPS: Final = 5
"""A window has at least this many round trips."""
_SLOW_RATIO: Final = 2.0
"""A window is slow only if its mean round trip exceeds the shortest this many times."""
_TOLERATED_SECONDS: Final = 0.005
"""A window is slow only if its mean exceeds the shortest by more than this."""
_REMEMBERED: Final = 32
"""Windows whose shortest round trip is kept; the least of these is the reference."""


class AdaptiveLimit:
    """The number of episodes at once, by what the server can take.

    It increases additively and decreases multiplicatively, as TCP does (RFC 5681,
    section 3.1). While as many episodes are under way as it allows, it rises by one for
    every ``limit`` episodes that end. When the server refuses a request with 429, it is
    cut by a tenth. It is not cut again, and does not rise, before ``limit`` more
    episodes have ended. Meanwhile each further request that is refused lowers it by
    one, at most to a half. The limit also does not rise while a refused request waits
    to be resent, because the server then carries less load than the limit suggests.

    With ``by_latency`` it is also cut where a round trip takes longer than it did with
    less under way, as in TCP Vegas. Only requests count in which no code of the
    environment runs, so that a slow tool is not taken for a busy server.

    Args:
        most: The greatest limit, and the first one.
        least: The least limit.
        first: The first one, if it is another.
        by_latency: Whether round trips count.
        clock: Gives seconds.
    """

    def __init__(
        self,
        most: int,
        least: int = 1,
        *,
        first: int | None = None,
        by_latency: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = float(most if first is None else first)
        self.under_way = 0
        self._most, self._least = float(most), float(min(least, most))
        self._floor = self._least
        self._to_end_first = 0
        self._clock = clock
        self._refused_until = -math.inf
        self._by_latency = by_latency
        self._window: list[float] = []
        self._ended = 0
        self._shortest: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def has_room(self) -> bool:
        """Whether one more episode may begin."""
        return self.under_way < int(self.limit)

    def begin(self) -> None:
        self.under_way += 1

    def end(self) -> None:
        """Count an episode that ended, whatever came of it."""
        is_used = self.under_way >= int(self.limit)
        self.under_way -= 1
        self._to_end_first -= 1
        self._ended += 1
        if self._to_end_first > 0:
            return
        if self._to_end_first == 0:
            # What was sent before the cut says nothing of the time after it.
            self._window.clear()
            self._ended = 0
        is_whole = self._ended >= self.limit and len(self._window) >= _LEAST_ROUND_TRIPS
        if is_whole and self._is_slow():
            self._cut(_CUT_FOR_WAITS)
        elif is_used and self._clock() >= self._refused_until:
            self.limit = min(self._most, self.limit + 1 / self.limit)
        if is_whole:
            self._window.clear()
            self._ended = 0

    def note_refusal(self, attempt: int, delay: float) -> None:
        """Note that a request was answered 429, after so many attempts.

        It is sent again after ``delay`` seconds.
        """
        self._refused_until = max(self._refused_until, self._clock() + delay)
        if self._to_end_first <= 0:
            self._cut(_CUT)
        elif attempt == 1:
            self.limit = max(self._floor, self.limit - 1)

    def note_round_trip(self, seconds: float) -> None:
        """Note how long a request took that runs no code of the environment."""
        if self._by_latency:
            self._window.append(seconds)

    def _is_slow(self) -> bool:
        """Say whether requests of this window waited for each other."""
        self._shortest.append(min(self._window))
        least = min(self._shortest)
        most = max(_SLOW_RATIO * least, least + _TOLERATED_SECONDS)
        # Not the median: where all calls end together, few requests wait, but long.
        return statistics.fmean(self._window) > most

    def _cut(self, share: float) -> None:
        self._floor = max(self._least, self.limit * _LEAST_OF_A_BURST)
        self.limit = max(self._least, self.limit * share)
        self._to_end_first = int(self.limit)


class Gate:
    """Lets episodes begin while an `AdaptiveLimit` has room for them."""

    def __init__(self, limit: AdaptiveLimit) -> None:
        self.limit = limit
        self._changed = asyncio.Event()
        self._is_over = False

    def note(self, retry: Retry) -> None:
        if "429" in retry.reason:
            self.limit.note_refusal(retry.attempt, retry.delay)

    async def begin(self) -> None:
        """Wait until one more episode may be played, and count it."""
        while not (self.limit.has_room or self._is_over):
            self._changed.clear()
            await self._changed.wait()
        self.limit.begin()

    def end(self) -> None:
        self.limit.end()
        self._changed.set()

    def open(self) -> None:
        """Let every waiting episode begin; each then finds that the run is over."""
        self._is_over = True
        self._changed.set()
