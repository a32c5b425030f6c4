"""How much a server may send before the client refuses to read on."""

from __future__ import annotations

import dataclasses

__all__ = ["Limits"]


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
