"""What may be sent again, when, and over which connections.

`may_repeat` judges requests that do no harm twice: questions, pings, deletes,
/create_session, and /create for a fresh session id. `certainly_not_run` judges tool
calls, and /create for the same session id.
A budget of seconds, back-off and the server's own word say when. What failed over a
connection that was used before is repeated over a new one, and `Reuse` learns from it.
"""

from __future__ import annotations

import dataclasses
import email.utils
from collections.abc import Callable
from typing import Final

from ors_gym.protocol._exchange import (
    CALL_REUSE_WITHIN,
    NEVER_REUSED,
    REUSE_WITHIN,
    Failure,
    Outcome,
    find_header,
)

_REPEATABLE = frozenset({429, 502, 503, 504})
"""Statuses after which a request that does no harm twice is repeated."""


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


_REMEMBERED_SECONDS: Final = 300.0
"""How long a broken connection is held against a server."""


class Reuse:
    """Learns whether a server breaks connections that it should keep.

    Some gateways end a connection unannounced soon after a reply, whatever is under way
    on it. Nobody can see that coming, so once a server did it twice, requests that
    may not be repeated go over new connections only (docs/wire.md, point 6). Other
    requests go on as before: they show whether it goes on, and can be repeated.
    """

    __slots__ = ("_broke_at", "_clock", "distrusted")

    def __init__(self, clock: Callable[[], float]) -> None:
        # Gives seconds.
        self._clock = clock
        self._broke_at = float("-inf")
        self.distrusted = False
        """Whether the server broke connections twice, not long ago."""

    def note_break(self, elapsed: float) -> None:
        """Note that a used connection broke, ``elapsed`` seconds into its exchange."""
        now = self._clock()
        if now - elapsed <= self._broke_at:
            # This exchange began before the last break: a restart breaks all at once.
            return
        self.distrusted = now - self._broke_at < _REMEMBERED_SECONDS
        self._broke_at = now

    def forget_in_time(self) -> bool:
        """Forget what is long ago; return whether the server is still distrusted."""
        if self._clock() - self._broke_at >= _REMEMBERED_SECONDS:
            self.distrusted = False
        return self.distrusted


class Patience:
    """How long an operation goes on, how long it waits in between, and on what.

    ``budget`` is in seconds, for all attempts and waits together. A server that
    refuses connections is tried again only for ``unreachable_budget``.
    """

    __slots__ = (
        "_delay",
        "_random",
        "_reuse",
        "_unreachable",
        "attempts",
        "call_reuse_within",
        "remaining",
        "reuse_within",
    )

    def __init__(
        self,
        budget: float,
        unreachable_budget: float,
        *,
        random: Callable[[], float],
        reuse: Reuse,
    ) -> None:
        self.remaining = budget
        self.attempts = 0
        self.reuse_within = REUSE_WITHIN
        """For a request that may be repeated, as `Send.reuse_within`."""
        self.call_reuse_within = CALL_REUSE_WITHIN
        """For a tool call or a /create."""
        if reuse.distrusted and reuse.forget_in_time():
            self.call_reuse_within = NEVER_REUSED
        self._reuse = reuse
        self._unreachable = unreachable_budget
        self._delay = _FIRST_DELAY
        self._random = random

    def spend(self, outcome: Outcome) -> None:
        """Take the time of an exchange or a pause off the budget."""
        self.remaining -= outcome.elapsed
        if outcome.failure is Failure.CONNECT:
            self._unreachable -= outcome.elapsed
        elif outcome.failure is not None and outcome.reused:
            # A repetition must not find the next connection that is about to break.
            self.reuse_within = self.call_reuse_within = NEVER_REUSED
            if outcome.failure is Failure.RESET:
                self._reuse.note_break(outcome.elapsed)

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
    """Return whether a harmless request is worth repeating after this outcome."""
    if outcome.failure is None:
        return outcome.status in _REPEATABLE
    return outcome.failure in (Failure.CONNECT, Failure.RESET, Failure.STALL)


def certainly_not_run(outcome: Outcome, *, after_429: bool) -> bool:
    """Return whether a request certainly was not run, so that it may be sent again.

    After any other outcome a tool may have run (docs/wire.md, point 5).
    """
    if not outcome.sent:
        # No byte of the call left.
        return True
    if outcome.status == 429:
        # No server SDK answers a call with 429. A gateway did, and did not pass the
        # call on; the user may know a gateway that answers so after the tool ran.
        return after_429
    return is_starting(outcome)
