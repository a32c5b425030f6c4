"""Serve ORS environments from this machine: the bundled ones, or your own.

Any Gymnasium environment and any data set of reasoning-gym is one too, see `serve`.

The server is that of ors-sdk, not of the newer openreward. ors-sdk starts in 0.5 s and
takes 59 MB; openreward needs 2.7 s for its import alone and takes 204 MB. ors-sdk has
two flaws, which the bundled environments work around: a tool that does not await blocks
the whole server, so their tools are short; and a call after the end of an episode runs
and pays again, so their tools check for the end themselves.

Importing this package imports nothing of the SDK: the environments live in a process of
their own.
"""

from __future__ import annotations

from ors_gym.server._embedded import embedded_base_url

# The files:
#
#   _serve              `serve` in a process of its own, `run` in this process
#   _embedded           the server that a process and its children share
#   _process            starts a server process, and ends it with its owner
#   _process_main       what runs in that process, until its owner is gone
#   _http_server        ors-sdk as an application, and its log
#   _uvicorn            uvicorn, as every HTTP server here runs it
#   _web                the socket of an HTTP server, and who may reach it
#   _load_served        what is served, sent to the server process and loaded there
#   _reference_players  a scripted player for each bundled environment
#   adapters            Gymnasium environments and other people's data sets
#   environments        the bundled environments, one module each
from ors_gym.server._load_served import LIBRARIES
from ors_gym.server._reference_players import REFERENCE_PLAYERS, Player
from ors_gym.server._serve import run, serve
from ors_gym.server.environments import BUNDLED, PlayerMistakeError

__all__ = [
    "BUNDLED",
    "LIBRARIES",
    "REFERENCE_PLAYERS",
    "Player",
    "PlayerMistakeError",
    "embedded_base_url",
    "run",
    "serve",
]
