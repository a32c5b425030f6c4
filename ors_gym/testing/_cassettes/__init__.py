"""Recorded servers: what a cassette holds, how it is made, and how it is played."""

from __future__ import annotations

# The files:
#
#   rows      a cassette's rows: a request and its reply, without secrets
#   recorder  a proxy that writes them
#   tape      which recorded reply answers a request
#   player    a server that answers from a tape
#   asgi      what both are as applications of a web server
#   control   starts a recorder, in a process of its own or in this one
