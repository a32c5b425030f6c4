"""A failure that belongs to the player rather than to the environment."""

from __future__ import annotations

__all__ = ["PlayerMistakeError"]


class PlayerMistakeError(Exception):
    """Raised by a tool to report a mistake of the player, such as wrong SQL.

    The player is told, as of any tool that raises. The process that serves the
    environment shows no traceback of it: it is no fault of the environment.

    Example:
        >>> raise PlayerMistakeError("no such table: customer")
        Traceback (most recent call last):
            ...
        ors_gym.server._failures.PlayerMistakeError: no such table: customer
    """
