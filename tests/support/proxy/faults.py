"""What a `FaultProxy` can do to one exchange, as plain values.

A fault happens at a `Point` of the exchange. Where the reply is no stream of events,
its body takes the place of the chunks: IN_CHUNK is its middle, BEFORE_END its last
byte, AFTER_TASK_ID the same as AFTER_HEAD.
"""

import dataclasses
import enum
import random
from collections.abc import Sequence
from typing import Final


class Point(enum.Enum):
    BEFORE_REQUEST = "before the request"
    """The request was read, and nothing forwarded: the tool never runs."""
    BEFORE_REPLY = "before the reply"
    """The server has answered, and not a byte of that was passed on."""
    AFTER_HEAD = "after the head"  # status line and header lines were passed on
    AFTER_TASK_ID = "after task_id"  # the ``task_id`` event was passed on, whole
    IN_CHUNK = "in a chunk"
    """Half of the first event that holds a part of the result was passed on."""
    BEFORE_END = "before the end"
    """All was passed on but the ``end`` or ``error`` event."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """The base of all faults."""


@dataclasses.dataclass(frozen=True, slots=True)
class PointFault(Fault):
    at: Point
    # Wait for the server's whole reply first, so that the tool has run and its
    # runs can be counted at once. False strikes immediately.
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
    """Hold back all bytes from here on."""

    at: Point
    # Then go on as if nothing had happened. None holds the bytes until the client
    # hangs up or `FaultProxy.release` is called.
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """Overwrite the bytes that follow a point."""

    # After BEFORE_REQUEST and BEFORE_REPLY there is nothing to corrupt.
    at: Point = Point.IN_CHUNK
    data: bytes = b"\xff\xfe"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer(Fault):
    """Answer in the server's place."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()  # beside Content-Type and Content-Length
    body: bytes = b'{"detail": "from the proxy"}'
    # Forward the request and wait for the whole reply first, as a gateway does that
    # loses the reply.
    ran: bool = False
    content_type: str = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Trickle(Fault):
    """Pass the reply on one byte per packet."""


@dataclasses.dataclass(frozen=True, slots=True)
class BreakAfter(Fault):
    """Break the connection after so many bytes of the reply, its head included."""

    count: int  # Bytes that are passed on. A shorter reply passes unharmed.
    reset: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class HangUp(Fault):
    """Pass the exchange on, then close the idle connection."""

    after: float = 0.0  # seconds of idleness; a request that comes earlier is served
    reset: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class OneReply(Fault):
    """Break a connection at its second request, with nothing to be seen before."""

    ran: bool = False  # the server gets that request, and its reply is lost


STARTING: Final = Answer(
    503,
    (("X-Backend-State", "starting"), ("Retry-After", "0")),
    b'{"detail":"Environment still starting."}',
)
"""What openreward 0.1.157 and later answer while set-up goes on."""


def redirect(url: str, status: int = 307, *, ran: bool = False) -> Answer:
    return Answer(status, (("Location", url),), b"", ran=ran)


class Chaos:
    """Draws a fault for some of the exchanges, the same ones for the same seed."""

    def __init__(self, seed: int, probability: float, faults: Sequence[Fault]) -> None:
        self._random = random.Random(seed)
        self._probability = probability
        self._faults = list(faults)

    def draw(self) -> Fault | None:
        broken = self._random.random() < self._probability
        fault = self._random.choice(self._faults)
        return fault if broken else None
