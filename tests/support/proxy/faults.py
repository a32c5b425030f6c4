"""What a `FaultProxy` can do to one exchange, as plain values.

A fault happens at a `Point` of the exchange. Where the reply is no stream of events,
its body takes the place of the chunks: IN_CHUNK is its middle, BEFORE_END its last
byte, AFTER_TASK_ID the same as AFTER_HEAD.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Sequence
from typing import Final

__all__ = [
    "STARTING",
    "Answer",
    "BreakAfter",
    "Chaos",
    "Close",
    "Corrupt",
    "Fault",
    "HalfOpen",
    "HangUp",
    "Point",
    "Reset",
    "Stall",
    "Trickle",
    "Truncate",
    "redirect",
]


class Point(enum.Enum):
    """Where in an exchange a fault happens."""

    BEFORE_REQUEST = "before the request"
    """The request was read, and nothing forwarded: the tool never runs."""
    BEFORE_REPLY = "before the reply"
    """The server has answered, and not a byte of that was passed on."""
    AFTER_HEAD = "after the head"
    """Status line and header lines were passed on."""
    AFTER_TASK_ID = "after task_id"
    """The ``task_id`` event was passed on, whole."""
    IN_CHUNK = "in a chunk"
    """Half of the first event that holds a part of the result was passed on."""
    BEFORE_END = "before the end"
    """All was passed on but the ``end`` or ``error`` event."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """The base of all faults."""


@dataclasses.dataclass(frozen=True, slots=True)
class PointFault(Fault):
    """A fault at a point.

    Args:
        at: Where.
        finish: Wait for the server's whole reply first, so that the tool has run and
            runs can be counted at once. False strikes immediately.
    """

    at: Point
    finish: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Reset(PointFault):
    """Break the connection with a RST: the client sees ECONNRESET."""


@dataclasses.dataclass(frozen=True, slots=True)
class Close(PointFault):
    """End the connection with a FIN, in the middle of HTTP's framing or before it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Truncate(PointFault):
    """End the body here, with HTTP's framing complete.

    Where the reply has a Content-Length this is the same as `Close`.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class HalfOpen(PointFault):
    """Let the peer vanish: no byte comes any more, and no end of the stream.

    The connection to the server is closed; the client's stays open until the client
    closes it.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Hold back all bytes from here on.

    Args:
        at: Where.
        seconds: Then go on as if nothing had been. None holds until the client hangs
            up or `FaultProxy.release` is called.
    """

    at: Point
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """Overwrite the bytes that follow a point.

    Args:
        at: Where; after BEFORE_REQUEST and BEFORE_REPLY there is nothing to corrupt.
        data: What to write instead; invalid UTF-8 by default.
    """

    at: Point = Point.IN_CHUNK
    data: bytes = b"\xff\xfe"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer(Fault):
    """Answer in the server's place.

    Args:
        status: The HTTP status.
        headers: Header lines beside Content-Type and Content-Length.
        body: The body.
        ran: Forward the request and wait for the server's whole reply first, as a
            gateway does that loses it.
        content_type: The Content-Type.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"detail": "from the proxy"}'
    ran: bool = False
    content_type: str = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Trickle(Fault):
    """Pass the reply on one byte per packet."""


@dataclasses.dataclass(frozen=True, slots=True)
class BreakAfter(Fault):
    """Break the connection after so many bytes of the reply, its head included.

    Args:
        count: The bytes that are passed on. A shorter reply passes unharmed.
        reset: With a RST; otherwise with a FIN.
    """

    count: int
    reset: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class HangUp(Fault):
    """Pass the exchange on, then close the idle connection.

    Args:
        after: Seconds of idleness; a request that comes earlier is served.
        reset: With a RST; otherwise with a FIN.
    """

    after: float = 0.0
    reset: bool = False


STARTING: Final = Answer(
    503,
    (("X-Backend-State", "starting"), ("Retry-After", "0")),
    b'{"detail":"Environment still starting."}',
)
"""What openreward 0.1.157 and later answer while set-up goes on."""


def redirect(url: str, status: int = 307, *, ran: bool = False) -> Answer:
    """Return an answer that sends the client elsewhere.

    Args:
        url: The value of ``Location``.
        status: The HTTP status, 301 to 308.
        ran: Whether the request is forwarded first.
    """
    return Answer(status, (("Location", url),), b"", ran=ran)


class Chaos:
    """Draws a fault for some of the exchanges, the same ones for the same seed.

    Args:
        seed: The seed.
        probability: The part of the exchanges that are broken.
        faults: What may happen to them, equally likely.

    Example:
        >>> chaos = Chaos(7, 0.5, [Trickle()])
        >>> [chaos.draw() is None for _ in range(6)]
        [False, False, False, False, True, False]
    """

    def __init__(self, seed: int, probability: float, faults: Sequence[Fault]) -> None:
        self._random = random.Random(seed)
        self._probability = probability
        self._faults = list(faults)

    def draw(self) -> Fault | None:
        """Return the next exchange's fault, or None."""
        broken = self._random.random() < self._probability
        fault = self._random.choice(self._faults)
        return fault if broken else None
