"""The bundled environments, one module each.

To add one, write a module with a subclass of `NumberedTasks` (in ``_base``), list it in
`BUNDLED` below and in `ors_gym.registration`, and give it a reference player in
`ors_gym.server._reference_players`. Whatever the player needs to know of the rules
belongs into a module without the SDK, such as ``_maze_grid``: players run in processes
that do not import it.
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
"""The class of each served name, as ``"module:Class"``. The first is the default.

Example:
    >>> BUNDLED["math"]
    'ors_gym.server.environments.math:Math'
"""
