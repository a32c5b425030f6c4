"""The bundled environments, named by where they are.

Nothing here imports a server SDK: the process that serves them does. Each has a
scripted reference player in `ors_gym.server._players`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUNDLED"]

BUNDLED: Final[dict[str, str]] = {
    "math": f"{__name__}.math:Math",
    "guess": f"{__name__}.guess:Guess",
    "blackjack": f"{__name__}.blackjack:Blackjack",
    "maze": f"{__name__}.maze:Maze",
    "sql": f"{__name__}.sql:Sql",
}
"""Served name to ``"module:Class"``; the first is the server's default.

Example:
    >>> BUNDLED["math"]
    'ors_gym.server.environments.math:Math'
"""
