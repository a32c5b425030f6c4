"""Ports that stay a test's own while nobody listens on them."""

import pathlib
import random
import socket


def reserve_port() -> socket.socket:
    """Return a socket that keeps a free port of 127.0.0.1 until it is closed.

    It does not listen, so connections are refused. A server that sets SO_REUSEPORT
    can listen there, stop and listen again, and no other process gets the port in
    between, as the port of an outgoing connection for example.
    """
    return _reserve(0)


def reserve_new_port() -> socket.socket:
    """Return what `reserve_port` does, with a port that no earlier server had.

    A session is deleted once more a minute later, when the system may have given the
    port of its server to another one. It gives none below this range.
    """
    given = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first = int(given.split()[0])
    while True:
        port = random.randrange(first // 2, first)
        try:
            with socket.socket() as alone:
                # One that would share the port does not see that it is taken.
                alone.bind(("127.0.0.1", port))
            return _reserve(port)
        except OSError:
            continue


def port_of(reserved: socket.socket) -> int:
    return int(reserved.getsockname()[1])


def _reserve(port: int) -> socket.socket:
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", port))
    return reserved
