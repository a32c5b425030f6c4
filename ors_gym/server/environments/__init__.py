"""The bundled environments, one module each, and the error that they raise.

To add one:

1. Write a module here with a subclass of `NumberedTasks` (in ``_base``).
2. List it in `BUNDLED` below and in `ors_gym.registration.BUNDLED_NAMES`.
3. Give it a reference player in `ors_gym.server._reference_players`. A player runs in a
   process that does not import the SDK: put the rules that it needs into a module
   without the SDK, such as ``_maze_grid``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BUNDLED", "PlayerMistakeError"]

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


class PlayerMistakeError(Exception):
    """Raised by a tool to report a mistake of the player, such as wrong SQL.

    The player is told, as of any tool that raises. The server process prints no
    traceback, because the environment is not at fault.

    Example:
        >>> raise PlayerMistakeError("no such table: customer")
        Traceback (most recent call last):
            ...
        ors_gym.server.PlayerMistakeError: no such table: customer
    """

    # So that a traceback shows where to import it from.
    __module__ = "ors_gym.server"
