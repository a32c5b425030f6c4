"""When to ask again: a budget of seconds, back-off, and what the server says."""

from __future__ import annotations

import dataclasses
import email.utils
from collections.abc import Callable

from ors_gym.protocol._exchange import Failure, Outcome, find_header

__all__ = ["Patience", "Retry", "is_starting", "may_repeat", "retry_after"]

_REPEATABLE = frozenset({429, 502, 503, 504})
"""Statuses after which an idempotent request is repeated."""


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """What an ``on_retry`` hook is told before a request is repeated.

    Args:
        request: Method and path, such as ``"GET /math/prompt"``.
        reason: Why it is repeated, in a few words.
        attempt: How often it was sent so far.
        delay: Seconds until it is sent again.
    """

    request: str
    reason: str
    attempt: int
    delay: float


class Patience:
    """How long an operation goes on, and how long it waits in between.

    Waits double from 0.05 s to ``longest``, each shortened by up to a half at
    random so that many sessions do not come back at once.

    Args:
        budget: Seconds for all attempts and waits together.
        unreachable_budget: Seconds for which a server that cannot be connected to
            is tried again.
        random: Gives numbers in [0, 1).
        longest: Seconds of the longest wait that the server did not ask for.

    Example:
        >>> patience = Patience(1.0, 1.0, random=lambda: 0.0)
        >>> patience.next_delay(), patience.next_delay()
        (0.05, 0.1)
    """

    __slots__ = (
        "_delay",
        "_longest",
        "_random",
        "_unreachable",
        "attempts",
        "remaining",
    )

    def __init__(
        self,
        budget: float,
        unreachable_budget: float,
        *,
        random: Callable[[], float],
        longest: float = 5.0,
    ) -> None:
        self.remaining = budget
        self.attempts = 0
        self._unreachable = unreachable_budget
        self._delay = 0.05
        self._longest = longest
        self._random = random

    def spend(self, outcome: Outcome) -> None:
        """Take the time of an exchange or a pause off the budget.

        Args:
            outcome: What the driver answered.
        """
        self.remaining -= outcome.elapsed
        if outcome.failure is Failure.CONNECT:
            self._unreachable -= outcome.elapsed

    def next_delay(
        self, asked: float | None = None, *, unreachable: bool = False
    ) -> float | None:
        """Choose the next wait.

        Args:
            asked: Seconds that the server asked for, if it did.
            unreachable: Whether there was no connection at all.

        Returns:
            Seconds to wait, or None if that is beyond the budget.
        """
        self.attempts += 1
        delay = self._delay * (1 - self._random() / 2)
        self._delay = min(self._delay * 2, self._longest)
        if asked is not None:
            delay = max(delay, asked)
        if unreachable:
            self._unreachable -= delay
            if self._unreachable < 0:
                return None
        return delay if delay < self.remaining else None


def retry_after(outcome: Outcome) -> float | None:
    """Read ``Retry-After``, as seconds or as a date (RFC 9110, section 10.2.3).

    A date counts from the reply's own ``Date``, so no clock is needed and a clock
    that goes wrong does no harm.

    Args:
        outcome: A reply.

    Returns:
        Seconds to wait, or None if the server does not say.
    """
    value = find_header(outcome.headers, b"retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    date = find_header(outcome.headers, b"date")
    try:
        until = email.utils.parsedate_to_datetime(value)
        now = email.utils.parsedate_to_datetime(date or "")
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def is_starting(outcome: Outcome) -> bool:
    """Say whether the reply means "the environment is still being set up".

    Args:
        outcome: A reply.

    Returns:
        True for 503 with ``X-Backend-State: starting`` (docs/wire.md, point 5).
    """
    state = find_header(outcome.headers, b"x-backend-state") or ""
    return outcome.status == 503 and state.lower() == "starting"


def may_repeat(outcome: Outcome) -> bool:
    """Say whether an idempotent request is worth repeating.

    Args:
        outcome: What came of it.

    Returns:
        True after a broken connection or a status that passes.
    """
    if outcome.failure is None:
        return outcome.status in _REPEATABLE
    return outcome.failure in (Failure.CONNECT, Failure.RESET, Failure.STALL)
