"""What may be sent again, and when.

A request that changes nothing may be repeated (`may_repeat`), a tool call only if it
certainly was not run (`may_repeat_call`). A budget of seconds, back-off and the
server's own word say when.
"""

from __future__ import annotations

import dataclasses
import email.utils
from collections.abc import Callable
from typing import Final

from ors_gym.protocol._exchange import Failure, Outcome, find_header

_REPEATABLE = frozenset({429, 502, 503, 504})
"""Statuses after which an idempotent request is repeated."""


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """What an ``on_retry`` hook is told before a request is repeated."""

    request: str
    """Method and path, such as ``"GET /math/prompt"``."""
    reason: str
    """Why it is repeated, in a few words."""
    attempt: int
    """How often it was sent so far."""
    delay: float
    """Seconds until it is sent again."""


_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 5.0
"""Seconds of the first and the longest wait that the server did not ask for."""


class Patience:
    """How long an operation goes on, and how long it waits in between.

    ``budget`` is in seconds, for all attempts and waits together. A server that
    refuses connections is tried again only for ``unreachable_budget``.
    """

    __slots__ = ("_delay", "_random", "_unreachable", "attempts", "remaining")

    def __init__(
        self, budget: float, unreachable_budget: float, *, random: Callable[[], float]
    ) -> None:
        self.remaining = budget
        self.attempts = 0
        self._unreachable = unreachable_budget
        self._delay = _FIRST_DELAY
        self._random = random

    def spend(self, outcome: Outcome) -> None:
        """Take the time of an exchange or a pause off the budget."""
        self.remaining -= outcome.elapsed
        if outcome.failure is Failure.CONNECT:
            self._unreachable -= outcome.elapsed

    def next_delay(
        self, asked: float | None = None, *, unreachable: bool = False
    ) -> float | None:
        """Return the seconds to wait next, or None if the budget does not hold them.

        The server may have asked for some seconds. ``unreachable`` says that there was
        no connection at all.
        """
        self.attempts += 1
        # Shortened at random, so that many sessions do not come back at once.
        delay = self._delay * (1 - self._random() / 2)
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        if asked is not None:
            delay = max(delay, asked)
        if unreachable:
            self._unreachable -= delay
            if self._unreachable < 0:
                return None
        return delay if delay < self.remaining else None


def retry_after(outcome: Outcome) -> float | None:
    """Return the seconds that ``Retry-After`` asks for (RFC 9110, section 10.2.3)."""
    value = find_header(outcome.headers, b"retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    # A date counts from the reply's own Date: a clock that is wrong does no harm.
    date = find_header(outcome.headers, b"date")
    try:
        until = email.utils.parsedate_to_datetime(value)
        now = email.utils.parsedate_to_datetime(date or "")
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def is_starting(outcome: Outcome) -> bool:
    """Return whether a reply says that the environment is still being set up.

    Servers say so by 503 with ``X-Backend-State: starting`` (docs/wire.md, point 5).
    """
    state = find_header(outcome.headers, b"x-backend-state") or ""
    return outcome.status == 503 and state.lower() == "starting"


def may_repeat(outcome: Outcome) -> bool:
    """Return whether an idempotent request is worth repeating after this outcome."""
    if outcome.failure is None:
        return outcome.status in _REPEATABLE
    return outcome.failure in (Failure.CONNECT, Failure.RESET, Failure.STALL)


def may_repeat_call(outcome: Outcome, *, after_429: bool) -> bool:
    """Return whether a tool call certainly was not run, so that it may be sent again.

    Anything but these outcomes may have run the tool (docs/wire.md, point 5).
    """
    if not outcome.sent:
        # No byte of the call left.
        return True
    if outcome.status == 429:
        # No server SDK answers a call with 429. A gateway did, and did not pass the
        # call on; the user may know a gateway that answers so after the tool ran.
        return after_429
    return is_starting(outcome)
