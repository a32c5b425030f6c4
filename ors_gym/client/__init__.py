"""Connections to a server, and the clients that drive operations over them."""
