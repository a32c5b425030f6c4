"""Ports that stay a test's own while nobody listens on them."""

import socket


def reserve_port() -> socket.socket:
    """Return a socket that keeps a free port of 127.0.0.1 until it is closed.

    It does not listen, so connections are refused. A server that sets SO_REUSEPORT
    can listen there, stop and listen again, and no other process gets the port in
    between, as the port of an outgoing connection for example.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def port_of(reserved: socket.socket) -> int:
    return int(reserved.getsockname()[1])
