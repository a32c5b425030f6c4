"""How many episodes are played at once: fewer where the server says 429."""

from __future__ import annotations

import asyncio

from ors_gym.protocol.retries import Retry

__all__ = ["Pace"]


class Pace:
    """A limit that halves when the server is asked too much, and grows back slowly.

    Additive increase and multiplicative decrease, as TCP does it (RFC 5681, section
    3.1): halved at most once until as many episodes have ended as are under way, and
    then raised by one for that many.

    Args:
        most: How many episodes at once at most.

    Example:
        >>> pace = Pace(8)
        >>> pace.note(Retry("POST /create", "status 429", 1, 0.1))
        >>> pace.limit
        4.0
    """

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._under_way = 0
        self._to_end_first = 0
        self._changed = asyncio.Event()

    def note(self, retry: Retry) -> None:
        """Take note of a request that has to be repeated.

        Args:
            retry: Which, and why.
        """
        if "429" in retry.reason and self._to_end_first <= 0:
            self.limit = max(1.0, self.limit / 2)
            self._to_end_first = int(self.limit)

    async def begin(self) -> None:
        """Wait until one more episode may be played, and count it."""
        while self._under_way >= int(self.limit):
            self._changed.clear()
            await self._changed.wait()
        self._under_way += 1

    def end(self) -> None:
        """Take note that an episode ended."""
        self._under_way -= 1
        self._to_end_first -= 1
        if self._to_end_first <= 0 and self.limit < self._most:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._changed.set()
