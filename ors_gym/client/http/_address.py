"""Where a server is, and how to connect to it: addresses, sockets, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import certifi

from ors_gym.errors import InvalidRequestError

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_PATH: Final = re.compile(r"(?:/[\x21-\x7e]*)?")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


class Origin:
    """Scheme, host, port and path prefix of a base URL.

    A URL that cannot be used raises `InvalidRequestError`. The message does not quote
    the URL, which may hold a password.
    """

    __slots__ = ("authority", "host", "literal", "port", "prefix", "scheme")

    def __init__(self, base_url: str) -> None:
        if not isinstance(base_url, str):
            raise InvalidRequestError(
                "a base URL is text such as 'http://host:port', and this is of the "
                f"type {type(base_url).__name__}"
            )
        if _UNPRINTABLE.search(base_url):
            raise InvalidRequestError(
                "the base URL holds a blank or a control character; leave it out"
            )
        try:
            parts = urllib.parse.urlsplit(base_url)
            port = parts.port
        except ValueError:
            raise InvalidRequestError(
                "the base URL cannot be read; write it as http://host:port"
            ) from None
        if "://" not in base_url:
            raise InvalidRequestError(
                "write the base URL with its scheme: http://host:port or https://host"
            )
        if parts.scheme not in _PORTS:
            raise InvalidRequestError(
                "the base URL must begin with http:// or https://, "
                f"not with {parts.scheme[:20] or 'something else'!r}"
            )
        if "@" in parts.netloc:
            raise InvalidRequestError(
                "the base URL holds a user name or a password; "
                "pass an API key or a header instead"
            )
        if "?" in base_url or "#" in base_url:
            raise InvalidRequestError(
                "the base URL holds a query or a fragment; it must end with its path"
            )
        if not _PATH.fullmatch(parts.path) or port == 0:
            raise InvalidRequestError(
                "the base URL's path must be percent-encoded and its port at least 1"
            )
        self.scheme = parts.scheme
        """``http`` or ``https``."""
        self.host, self.literal = _read_host(parts.hostname or "")
        """The host's name or address (IPv6 without brackets), and the parsed address if
        it is one, so that nobody looks it up."""
        self.port = port or _PORTS[parts.scheme]
        self.prefix = parts.path.rstrip("/")
        """The path that comes before every target."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == _PORTS[self.scheme] else f"{self}"
        """What the Host header says (RFC 9110, section 7.2)."""

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine for certain, without asking a resolver.

        It is if the host is a loopback address, or a name at or below ``localhost``
        (RFC 6761, section 6.3).
        """
        if self.literal is not None:
            return self.literal.is_loopback
        return self.host == "localhost" or self.host.endswith(".localhost")

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{name}:{self.port}"

    def __repr__(self) -> str:
        return f"Origin('{self.scheme}://{self}{self.prefix}')"


def _read_host(
    host: str,
) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """Return a host as resolver and TLS expect it, and its address if it is one."""
    with contextlib.suppress(ValueError):
        if "%" not in host:
            return host, ipaddress.ip_address(host)
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise InvalidRequestError(
            "the base URL has no host that can be looked up; "
            "write it as http://host:port"
        )
    return name, None


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """Return the shared context, which verifies certificate and host name.

    There is one per process, since building one takes 20 to 120 ms.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return refuse_cuts(context)


def refuse_cuts(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make a context distinguish a connection that was cut from one that ended.

    Before Python 3.11.3, contexts take one for the other (python/cpython#95494).
    """
    # OpenSSL has the option from its version 3 on.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


_Address: TypeAlias = tuple[int, Any]
"""An address family, and an address as the socket module takes it."""

# The first probe comes after a minute; five unanswered ones end the connection. Not
# every system has all of these options.
_KEEP_ALIVE: Final = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 5))
    if hasattr(socket, name)
]
_SHORTEST_ATTEMPT: Final = 0.001


def connect(
    origin: Origin, ssl_context: ssl.SSLContext | None, deadline: float
) -> socket.socket:
    """Return a socket connected to the first address that answers, after TLS if any.

    The deadline is on the clock of `time.monotonic`.
    """
    addresses = _known_addresses(origin) or _read_addresses(
        socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    )
    for left in range(len(addresses), 0, -1):
        share = _share_of_time(deadline, left)
        try:
            connected = _connect_to(addresses[-left], origin, ssl_context, share)
        except OSError:
            if left == 1:
                raise
        else:
            break
    return connected


def _connect_to(
    address: _Address,
    origin: Origin,
    ssl_context: ssl.SSLContext | None,
    timeout: float,
) -> socket.socket:
    until = time.monotonic() + timeout
    connected = _open_socket(address[0])
    try:
        connected.settimeout(timeout)
        connected.connect(address[1])
        _refuse_self_connection(connected)
        if ssl_context is not None:
            connected = secured = _wrap_tls(connected, ssl_context, origin)
            secured.settimeout(max(until - time.monotonic(), _SHORTEST_ATTEMPT))
            secured.do_handshake()
    except BaseException:
        connected.close()
        raise
    return connected


async def connect_async(
    origin: Origin, ssl_context: ssl.SSLContext | None, deadline: float
) -> socket.socket:
    """Do what `connect` does, on the running event loop; the socket never blocks."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(deadline - time.monotonic()):
        addresses = _known_addresses(origin) or await _look_up(loop, origin)
    for left in range(len(addresses), 0, -1):
        address = addresses[-left]
        try:
            async with asyncio.timeout(_share_of_time(deadline, left)):
                connected = await _connect_to_async(loop, address, origin, ssl_context)
        except OSError:
            if left == 1:
                raise
        else:
            break
    return connected


async def _connect_to_async(
    loop: asyncio.AbstractEventLoop,
    address: _Address,
    origin: Origin,
    ssl_context: ssl.SSLContext | None,
) -> socket.socket:
    connected = _open_socket(address[0])
    try:
        connected.setblocking(False)
        await loop.sock_connect(connected, address[1])
        _refuse_self_connection(connected)
        if ssl_context is not None:
            connected = secured = _wrap_tls(connected, ssl_context, origin)
            await _do_handshake(loop, secured)
    except BaseException:
        _close_on_loop(loop, connected)
        raise
    return connected


def _close_on_loop(loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
    """Close a socket that an event loop may watch.

    An interrupt can leave it watched. The loop would take the next socket, which gets
    the same descriptor, for this one, and never tell that it is connected.
    """
    if connected.fileno() >= 0 and not loop.is_closed():
        loop.remove_reader(connected.fileno())
        loop.remove_writer(connected.fileno())
    connected.close()


def _known_addresses(origin: Origin) -> list[_Address] | None:
    """Return the addresses of a host that nobody has to look up, else None."""
    if origin.literal is None:
        if not origin.is_loopback:
            return None
        # Whatever a resolver would say of it, since keys are sent there in the clear.
        return [
            (socket.AF_INET6, ("::1", origin.port)),
            (socket.AF_INET, ("127.0.0.1", origin.port)),
        ]
    family = socket.AF_INET if origin.literal.version == 4 else socket.AF_INET6
    return [(family, (origin.host, origin.port))]


def _read_addresses(infos: list[tuple[Any, ...]]) -> list[_Address]:
    """Return each address that `socket.getaddrinfo` found once, in its order."""
    return list(dict.fromkeys((int(info[0]), info[4]) for info in infos))


def _share_of_time(deadline: float, left: int) -> float:
    """Return the seconds for one of the ``left`` addresses: an even share.

    The deadline is on the clock of `time.monotonic`.
    """
    return max(deadline - time.monotonic(), _SHORTEST_ATTEMPT) / left


def _open_socket(family: int) -> socket.socket:
    """Return an unconnected TCP socket that sends at once and probes when silent."""
    # It has a name before it has a descriptor, so an interrupt leaves none open.
    opened = socket.socket.__new__(socket.socket)
    try:
        socket.socket.__init__(opened, family, socket.SOCK_STREAM)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A tool may be silent for longer than a NAT or a load balancer remembers a
        # connection, and a machine that is gone is silent too.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        # `close` needs attributes that a half-made socket lacks.
        if (descriptor := opened.detach()) >= 0:
            socket.close(descriptor)
        raise
    return opened


def _wrap_tls(
    connected: socket.socket, context: ssl.SSLContext, origin: Origin
) -> ssl.SSLSocket:
    """Return a TLS socket that takes over a connected one, before its handshake."""
    return context.wrap_socket(
        connected,
        server_hostname=origin.host,
        do_handshake_on_connect=False,
        # A body without a length ends where the server signs its end, not where
        # somebody cuts the connection.
        suppress_ragged_eofs=False,
    )


def _refuse_self_connection(connected: socket.socket) -> None:
    """Raise `ConnectionRefusedError` if both ends of a connection are the same.

    Where nobody listens on a local port of the ephemeral range, TCP can pick that port
    for the client's end and connect it to itself (simultaneous open, RFC 9293, 3.5).
    """
    if connected.getsockname() == connected.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


async def _look_up(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[_Address]:
    resolve: Any = functools.partial(
        socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM
    )
    try:
        return _read_addresses(await loop.run_in_executor(None, resolve))
    except RuntimeError:
        # A process that exits starts no thread any more, but has sessions to delete.
        return _read_addresses(resolve())


async def _do_handshake(
    loop: asyncio.AbstractEventLoop, secured: ssl.SSLSocket
) -> None:
    """Do the TLS handshake without blocking the event loop."""
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(secured, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(secured, loop.add_writer, loop.remove_writer)
        else:
            return


async def _ready(
    waiting: socket.socket, add: Callable[..., None], remove: Callable[[int], object]
) -> None:
    """Wait until the loop says that a socket is ready."""
    ready = asyncio.get_running_loop().create_future()
    try:
        add(waiting.fileno(), _set_ready, ready)
        await ready
    finally:
        remove(waiting.fileno())


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
