"""The colours of pictures and cards, on a dark and on a light ground.

Every colour of text has a contrast of at least 4.5 on ``ground`` and on ``surface``
(WCAG 2.2, success criterion 1.4.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DARK", "LIGHT", "TEXT_COLOURS", "reward_colour"]

DARK: Final[Mapping[str, str]] = {
    "ground": "#15181e",
    "surface": "#20252e",
    "line": "#3b4350",
    "text": "#e7e9ee",
    "muted": "#a8b0bd",
    "accent": "#82b8ff",
    "good": "#71d98f",
    "bad": "#ff958c",
    "warn": "#f2c364",
}
LIGHT: Final[Mapping[str, str]] = {
    "ground": "#ffffff",
    "surface": "#f4f6f9",
    "line": "#d3d9e2",
    "text": "#1b2330",
    "muted": "#525c6b",
    "accent": "#0b57b0",
    "good": "#0f6a2f",
    "bad": "#b3261e",
    "warn": "#7d4e00",
}
TEXT_COLOURS: Final = ("text", "muted", "accent", "good", "bad", "warn")


def reward_colour(reward: float) -> str:
    """Return the name of a reward's colour.

    Args:
        reward: The reward.

    Example:
        >>> reward_colour(1.0), reward_colour(-0.5), reward_colour(0.0)
        ('good', 'bad', 'muted')
    """
    if reward == 0:
        return "muted"
    return "good" if reward > 0 else "bad"
