"""Connections of our own: sockets, a pool, HTTP/1.1 and TLS."""
