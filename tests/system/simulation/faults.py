"""What may go wrong with one exchange, and what that does to its reply."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ors_gym.protocol._exchange import Failure

__all__ = [
    "AFTERWARDS",
    "CUTS",
    "DELAYS",
    "ENDINGS",
    "GATES",
    "REPLAYS",
    "SILENT",
    "UNSEEN",
    "Fault",
]


class Fault(enum.Enum):
    """What goes wrong with one exchange.

    New ones go to the end, so that older seeds mean what they meant.
    """

    REFUSED = "connection refused"
    RESET_UNSEEN = "reset before the request arrived"
    STALE = "sent over a connection that the server had closed"
    LATE = "reset, and the request arrives all the same"
    RESET = "reset after the request arrived"
    CUT_HEAD = "reset after the head"
    CUT_TASK = "reset after the first event"
    CUT_CHUNK = "reset within the second event"
    CUT_END = "reset before the last event"
    CUT_BLANK = "reset before the last blank line"
    SHORT_HEAD = "an empty body, with HTTP's framing complete"
    SHORT_TASK = "nothing after the first event, with HTTP's framing complete"
    SILENT_UNSEEN = "the request vanishes and nothing comes back"
    SILENT = "the request arrives and nothing comes back"
    SILENT_TASK = "nothing after the first event"
    SILENT_CHUNK = "nothing after half of the second event"
    SLOW = "the reply comes 20 s late"
    SLOW_TASK = "what follows the first event comes 40 s late"
    GARBLED = "the reply is not HTTP"
    TOO_LARGE = "the reply is larger than the limits, after the first event"
    GATE_401 = "a gateway answers 401"
    GATE_429 = "a gateway answers 429"
    GATE_STARTING = "a gateway answers 503, starting"
    GATE_503 = "a gateway answers 503, and the request does not arrive"
    GATE_502 = "a gateway answers 502, and the request arrived"
    GATE_504 = "a gateway answers 504 when the server is done"
    GATE_HTML = "a gateway answers 200 with a page, and the request arrived"
    RESTART = "the server restarts before the request arrives"
    RESTART_AFTER = "the server restarts after the request arrived"
    LATER = "reset, and the request arrives more than a minute later"
    HELD = "the request arrives 40 s late"
    TWICE = "a gateway delivers the request twice, and passes the first reply"
    REPLAYED = "a gateway delivers the request, loses the reply, and asks again"
    ECHOED = "a gateway delivers the request once more 5 s later"


GATES: Final = {
    Fault.GATE_401: (401, ()),
    Fault.GATE_429: (429, ((b"Retry-After", b"2"),)),
    Fault.GATE_STARTING: (
        503,
        ((b"X-Backend-State", b"starting"), (b"Retry-After", b"1")),
    ),
    Fault.GATE_503: (503, ()),
}
AFTERWARDS: Final = {
    Fault.GATE_502: (502, b"bad gateway"),
    Fault.GATE_504: (504, b"gateway timeout"),
    Fault.GATE_HTML: (200, b"<html>hello</html>"),
}
UNSEEN: Final = {Fault.RESET_UNSEEN, Fault.LATE, Fault.LATER, Fault.STALE}
"""The client sees a reset, and the server nothing, or not yet."""
DELAYS: Final = {Fault.LATE: 3.0, Fault.LATER: 70.0, Fault.HELD: 40.0}
"""Seconds after which a request arrives that is under way for long. Whatever the client
sends in the meantime, over other connections, arrives before it."""
REPLAYS: Final = {Fault.TWICE: 0.001, Fault.REPLAYED: 1.0, Fault.ECHOED: 5.0}
"""Seconds after which a gateway delivers a request once more."""
SILENT: Final = {Fault.SILENT, Fault.SILENT_UNSEEN, Fault.SILENT_TASK}

_Pieces: TypeAlias = list[tuple[float, bytes]]


def _half(pieces: _Pieces) -> _Pieces:
    """Keep one event and half of the next, or half of a body in one piece."""
    place = 1 if len(pieces) > 1 else 0
    when, data = pieces[place]
    return [*pieces[:place], (when, data[: len(data) // 2])]


def _without_blank(pieces: _Pieces) -> _Pieces:
    when, data = pieces[-1]
    return [*pieces[:-1], (when, data[:-2])]


def _first(pieces: _Pieces) -> _Pieces:
    return pieces[:1]


CUTS: Final[dict[Fault, Callable[[_Pieces], _Pieces]]] = {
    Fault.CUT_HEAD: lambda _: [],
    Fault.SHORT_HEAD: lambda _: [],
    Fault.CUT_TASK: _first,
    Fault.SHORT_TASK: _first,
    Fault.SILENT_TASK: _first,
    Fault.TOO_LARGE: _first,
    Fault.CUT_CHUNK: _half,
    Fault.SILENT_CHUNK: _half,
    Fault.CUT_END: lambda pieces: pieces[:-1],
    Fault.CUT_BLANK: _without_blank,
}
ENDINGS: Final[dict[Fault, Any]] = {
    Fault.CUT_HEAD: Failure.RESET,
    Fault.CUT_TASK: Failure.RESET,
    Fault.CUT_CHUNK: Failure.RESET,
    Fault.CUT_END: Failure.RESET,
    Fault.CUT_BLANK: Failure.RESET,
    Fault.TOO_LARGE: Failure.LIMIT,
}
