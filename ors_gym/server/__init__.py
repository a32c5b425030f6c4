"""Serve ORS environments from this machine: the bundled ones, or your own.

The server is that of ors-sdk rather than of the newer openreward: it starts in 0.5 s
where the other's import alone takes 2.7 s, and brings 59 MB where the other brings 204.
What it does worse, that a tool which does not await blocks the whole server, and that a
call after the end runs and pays again, the bundled environments avoid by themselves.

Nothing of the SDK is imported here: the environments live in a child process.
"""

from __future__ import annotations

from ors_gym.server._failures import PlayerMistakeError
from ors_gym.server._foreground import run
from ors_gym.server._owner import embedded_base_url, serve
from ors_gym.server._players import REFERENCE_PLAYERS, Player
from ors_gym.server.environments import BUNDLED

__all__ = [
    "BUNDLED",
    "REFERENCE_PLAYERS",
    "Player",
    "PlayerMistakeError",
    "embedded_base_url",
    "run",
    "serve",
]
