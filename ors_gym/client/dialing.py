"""What opening a connection needs, blocking or not: addresses, sockets, TLS."""

from __future__ import annotations

import errno
import functools
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import certifi

from ors_gym.client.origin import Origin

__all__ = [
    "Address",
    "attempts",
    "default_ssl_context",
    "literal_address",
    "open_socket",
    "read_addresses",
    "refuse_self_connection",
    "secure",
]

Address: TypeAlias = tuple[int, Any]
"""An address family, and an address as the socket module takes it."""

# First probe after a minute, five unanswered ones end the connection. Not every
# system has all of these options.
_KEEP_ALIVE: Final = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 5))
    if hasattr(socket, name)
]
_SHORTEST_ATTEMPT: Final = 0.001


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the context of every TLS connection that was not given its own.

    It verifies certificate and host name. There is one per process, since building
    one takes 20 to 120 ms.

    Returns:
        The context.

    Example:
        >>> default_ssl_context() is default_ssl_context()
        True
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def literal_address(origin: Origin) -> list[Address] | None:
    """Return the address of an origin that is one already, else None.

    Args:
        origin: Where to connect to.

    Returns:
        A list of one address, or None if the name has to be looked up.

    Example:
        >>> literal_address(Origin("http://127.0.0.1:80")) == [
        ...     (socket.AF_INET, ("127.0.0.1", 80))
        ... ]
        True
    """
    if origin.literal is None:
        return None
    family = socket.AF_INET if origin.literal.version == 4 else socket.AF_INET6
    return [(family, (origin.host, origin.port))]


def read_addresses(infos: list[tuple[Any, ...]]) -> list[Address]:
    """Return the addresses of an answer of `getaddrinfo`, in its order.

    Args:
        infos: What `socket.getaddrinfo` returned.

    Returns:
        The addresses, each once.
    """
    return list(dict.fromkeys((int(info[0]), info[4]) for info in infos))


def attempts(
    addresses: list[Address], deadline: float
) -> Iterator[tuple[Address, float, bool]]:
    """Yield which address to try for how long.

    Each gets its share of the time: the first may be a route into nowhere.

    Args:
        addresses: What a name resolved to.
        deadline: When to give up, on the clock of `time.monotonic`.

    Yields:
        An address, seconds for it, and whether it is the last.
    """
    for left in range(len(addresses), 0, -1):
        remaining = max(deadline - time.monotonic(), _SHORTEST_ATTEMPT)
        yield addresses[-left], remaining / left, left == 1


def open_socket(family: int) -> socket.socket:
    """Return an unconnected TCP socket: small packets at once, probes in silence.

    Args:
        family: The address family.

    Returns:
        The socket.

    Raises:
        OSError: If the process may not open another one.
    """
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A tool may be silent for longer than a NAT or a load balancer remembers us, and a
    # machine that is gone says nothing either.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        opened.setsockopt(socket.IPPROTO_TCP, option, value)
    return opened


def secure(
    connected: socket.socket, context: ssl.SSLContext, origin: Origin
) -> ssl.SSLSocket:
    """Put TLS on a connection; its handshake is yet to be done.

    Args:
        connected: The connected socket; the result takes it over.
        context: Verifies the server.
        origin: Whose certificate it has to be.

    Returns:
        The socket for what is secret.
    """
    return context.wrap_socket(
        connected,
        server_hostname=origin.host,
        do_handshake_on_connect=False,
        # A body without a length ends where the server says so, not where somebody
        # cuts the connection.
        suppress_ragged_eofs=False,
    )


def refuse_self_connection(connected: socket.socket) -> None:
    """Refuse a connection to itself.

    Where nobody listens on a local port of the ephemeral range, TCP can pick that same
    port for our own end and connect it to itself (simultaneous open, RFC 9293).

    Args:
        connected: The connected socket.

    Raises:
        ConnectionRefusedError: If both ends are the same.
    """
    if connected.getsockname() == connected.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
