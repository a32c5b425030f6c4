"""A scripted reference player for each bundled environment.

A player is made per episode and called with the latest observation, the prompt at
first, and the tools; it answers with a tool call. It plays from the text alone, as a
model would, and never sees the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ors_gym.server.environments.math_problems import solve
from ors_gym.types import ToolCall, ToolSpec

__all__ = ["REFERENCE_PLAYERS", "Player"]

Player: TypeAlias = Callable[[str, Sequence[ToolSpec]], ToolCall]
"""From an observation and the tools to the next call."""


def play_math(observation: str, tools: Sequence[ToolSpec]) -> ToolCall:
    """Answer a word problem.

    Args:
        observation: The question.
        tools: Not needed.

    Returns:
        The call of ``submit``.
    """
    del tools
    return {"tool": "submit", "input": {"answer": str(solve(observation))}}


def play_guess(observation: str, tools: Sequence[ToolSpec]) -> ToolCall:
    """Bisect the interval that the observation names.

    Args:
        observation: A text with ``low..high`` in it.
        tools: Not needed.

    Returns:
        The call of ``guess``.

    Example:
        >>> play_guess("It is in 5..8, and you have 3 guesses left.", [])
        {'tool': 'guess', 'input': {'number': 6}}
    """
    del tools
    low, high = re.findall(r"(\d+)\.\.(\d+)", observation)[0]
    return {"tool": "guess", "input": {"number": (int(low) + int(high)) // 2}}


REFERENCE_PLAYERS: Final[dict[str, Callable[[], Player]]] = {
    "math": lambda: play_math,
    "guess": lambda: play_guess,
}
"""By the environment's name, what makes a player of one episode."""
