"""What an operation yields and what it is answered: `Send`, `Pause`, `Outcome`.

An operation is a generator. A driver does the exchange or the pause that it yields and
sends back what came of it.
"""

from __future__ import annotations

import dataclasses
import enum
import numbers
import re
from collections.abc import Generator, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

from ors_gym.errors import InvalidRequestError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on a reply and on the pool (docs/wire.md, point 17).

    Args:
        reply_bytes: Bytes of one reply on the wire, framing included.
        body_bytes: Bytes of one reply's body after any content encoding is undone.
        head_bytes: Bytes of a reply's head.
        interim_replies: Number of 1xx replies before the final one.
        line_bytes: Bytes of one line of an event stream.
        tools: Number of tools that a server may list.
        connections: Connections open at once; a request beyond that waits.

    Example:
        >>> Limits(tools=10).tools
        10
    """

    reply_bytes: int = 128 * 2**20
    body_bytes: int = 128 * 2**20
    head_bytes: int = 64 * 2**10
    interim_replies: int = 10
    line_bytes: int = 32 * 2**20
    tools: int = 10_000
    connections: int = 4096


Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""The header lines of a reply, as they came: names in any case."""

T = TypeVar("T")


class Failure(enum.Enum):
    """Why an exchange did not come to its end."""

    CONNECT = "connect"
    """No connection: refused, unreachable, name unknown, connect timed out."""
    TLS = "tls"
    """The TLS handshake or the certificate failed."""
    RESET = "reset"
    """The connection broke or ended before the reply was complete."""
    STALL = "stall"
    """No byte came for the sink's ``idle_timeout``."""
    TIMEOUT = "timeout"
    """The exchange's own ``timeout`` passed."""
    PROTOCOL = "protocol"
    """The reply is not HTTP/1.1."""
    LIMIT = "limit"
    """The reply is larger than the limits allow."""


_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")


class Head:
    """Method, target and headers of a request: what stays the same between calls.

    The target is path and query below the base URL, percent-encoded. A part that could
    break out of its line is refused (RFC 9112, section 11.1).
    """

    __slots__ = ("headers", "method", "rendered", "target")

    def __init__(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
            raise InvalidRequestError(f"not a request line: {method!r} {target!r}")
        for name, value in headers:
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise InvalidRequestError(
                    f"the header {name!r} holds a character that HTTP does not allow"
                )
        self.method = method
        self.target = target
        self.headers = tuple(headers)
        # The bytes of a transport, with the transport that rendered them. The calls of
        # a session share one head, so it is rendered once.
        self.rendered: tuple[object, bytes] | None = None


class Sink(Protocol):
    """Reads a reply as it arrives. It never raises: it keeps what is wrong."""

    idle_timeout: float | None
    """Seconds without a byte after which the driver gives up; read before each read."""

    def start(self, status: int, headers: Headers) -> None:
        """Take the head of the final reply; comes once, before any `feed`."""

    def feed(self, data: bytes) -> bool:
        """Take decoded bytes of the body; True when nothing more is needed."""


CALL_REUSE_WITHIN: Final = 3.0
"""Idle seconds after which a connection carries no tool call and no /create.

Servers close an idle connection after 60 seconds or sooner. A call on a connection that
is being closed looks like a lost reply, and is not sent again (docs/wire.md, point 6).
"""
REUSE_WITHIN: Final = 50.0
"""Idle seconds after which a connection carries no other request either."""
NEVER_REUSED: Final = -1.0
"""Lets no idle connection carry a request."""


class Send:
    """One exchange: send a request, let the sink read the reply."""

    __slots__ = ("body", "head", "reuse_within", "sink", "timeout", "traceparent")

    def __init__(
        self,
        head: Head,
        body: bytes | None,
        sink: Sink,
        timeout: float,
        reuse_within: float,
    ) -> None:
        self.head = head
        self.body = body
        self.sink = sink
        # Seconds for the whole exchange, connecting included.
        self.timeout = timeout
        # An idle connection may serve this request for so many seconds after the last
        # byte of its last reply. The server may be closing an older one, and the
        # request would be lost on it (docs/wire.md, point 6).
        self.reuse_within = reuse_within
        # What the server is told of a trace, in place of any header of that name.
        self.traceparent = ""


class Pause:
    """Wait some seconds, then go on with an `Outcome` that says how long it took."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Outcome:
    """What came of a `Send` or a `Pause`."""

    __slots__ = (
        "detail",
        "elapsed",
        "failure",
        "headers",
        "reused",
        "sent",
        "status",
    )

    def __init__(
        self,
        *,
        sent: bool = True,
        status: int = 0,
        headers: Headers = (),
        failure: Failure | None = None,
        detail: str = "",
        elapsed: float = 0.0,
        reused: bool = False,
    ) -> None:
        # Whether any byte of the request may have left. Only a request of which no
        # byte left is safe to send again.
        self.sent = sent
        # 0 if no complete head came.
        self.status = status
        self.headers = headers
        # None as well if the sink had what it needed before the reply's end.
        self.failure = failure
        # A sentence about the failure, without a secret in it.
        self.detail = detail
        # Seconds.
        self.elapsed = elapsed
        # Of a failure: whether the connection had carried an exchange before.
        self.reused = reused


Operation: TypeAlias = Generator[Send | Pause, Outcome, T]
"""A protocol operation that returns a value of type T."""


def find_header(headers: Headers, name: bytes) -> str | None:
    """Return the first value of a header, which is named in lower case, or None."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value.strip().decode("latin-1")
    return None


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no time that somebody can wait."""
    # Real, for NumPy's numbers; a bool is one too.
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidRequestError(
            f"{name} is {value!r}; it must be a number of seconds"
        )
    if not float(value) > 0:
        raise InvalidRequestError(f"{name} must be more than 0 seconds")
