"""How much a server may send before the client refuses to read on."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Generator, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

from ors_gym.errors import InvalidRequestError

__all__ = [
    "Failure",
    "Head",
    "Headers",
    "Limits",
    "Operation",
    "Outcome",
    "Pause",
    "Send",
    "Sink",
    "find_header",
]


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

    Args:
        method: An HTTP method other than HEAD.
        target: Path and query below the base URL, percent-encoded, with a leading
            slash.
        headers: Header lines beside Host, Content-Length and those of the client.

    Raises:
        InvalidRequestError: If any part could break out of its line (RFC 9112,
            section 11.1).

    Example:
        >>> Head("GET", "/health", ()).target
        '/health'
    """

    __slots__ = ("headers", "method", "target", "wire")

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
        self.wire: tuple[object, bytes] | None = None
        """A transport's own rendering with its owner, kept to be made once."""


class Sink(Protocol):
    """Reads a reply as it arrives. It never raises: it keeps what is wrong."""

    idle_timeout: float | None
    """Seconds without a byte after which the driver gives up; read before each read."""

    def start(self, status: int, headers: Headers) -> None:
        """Take the head of the final reply; comes once, before any `feed`."""

    def feed(self, data: bytes) -> bool:
        """Take decoded bytes of the body; True when nothing more is needed."""


class Send:
    """One exchange: send a request, let the sink read the reply.

    Args:
        head: The request's head.
        body: The request's body, or None for a request without one.
        sink: Reads the reply.
        timeout: Seconds for the whole exchange, connecting included.
        reuse_within: A pooled connection may serve this request only if at most
            this many seconds have passed since the last byte of its last reply
            (docs/wire.md, point 6).
    """

    __slots__ = ("body", "head", "reuse_within", "sink", "timeout")

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
        self.timeout = timeout
        self.reuse_within = reuse_within


class Pause:
    """Wait, then go on with an `Outcome` that says how long it took.

    Args:
        seconds: How long to wait.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Outcome:
    """What came of a `Send` or a `Pause`.

    Args:
        sent: Whether any byte of the request may have left. False means that
            sending it again is safe.
        status: The HTTP status of the reply, or 0 if no complete head came.
        headers: The reply's header lines.
        failure: Why the exchange did not come to its end; None if it did, or if
            the sink had what it needed.
        detail: A sentence about the failure, without a secret in it.
        elapsed: Seconds that the exchange or the pause took.
    """

    __slots__ = ("detail", "elapsed", "failure", "headers", "sent", "status")

    def __init__(
        self,
        *,
        sent: bool = True,
        status: int = 0,
        headers: Headers = (),
        failure: Failure | None = None,
        detail: str = "",
        elapsed: float = 0.0,
    ) -> None:
        self.sent = sent
        self.status = status
        self.headers = headers
        self.failure = failure
        self.detail = detail
        self.elapsed = elapsed


Operation: TypeAlias = Generator[Send | Pause, Outcome, T]
"""A protocol operation that returns a value of type T."""


def find_header(headers: Headers, name: bytes) -> str | None:
    """Return the first value of a header, or None.

    Args:
        headers: A reply's header lines.
        name: The header's name in lower case.

    Returns:
        The value as text, without blanks around it.

    Example:
        >>> find_header([(b"Content-Type", b" text/html")], b"content-type")
        'text/html'
    """
    length = len(name)
    for key, value in headers:
        if len(key) == length and key.lower() == name:
            return value.strip().decode("latin-1")
    return None
