"""The text of an episode as a person reads it."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Transcript"]


class Transcript:
    """Collects an episode as lines of plain text.

    Example:
        >>> transcript = Transcript()
        >>> transcript.start("What is 2 + 2?")
        >>> transcript.step("submit", {"answer": "4"}, "Right.", 1.0, "finished")
        >>> print(transcript.text())
        What is 2 + 2?
        <BLANKLINE>
        > submit(answer="4")
        Right.
        [reward 1, finished]
    """

    def __init__(self) -> None:
        self._parts: list[str] = []

    def start(self, prompt: str) -> None:
        """Begin an episode.

        Args:
            prompt: The prompt's text.
        """
        self._parts = [prompt]

    def step(
        self,
        tool: str,
        tool_input: dict[str, Any],
        text: str,
        reward: float,
        note: str = "",
    ) -> None:
        """Add a step.

        Args:
            tool: The tool's name; ``""`` for an action that could not be read.
            tool_input: Its arguments.
            text: What came back.
            reward: The step's reward.
            note: How the episode ended, or what went wrong, in a few words.
        """
        arguments = ", ".join(f"{k}={json.dumps(v)}" for k, v in tool_input.items())
        call = f"> {tool}({arguments})" if tool else "> (no tool call)"
        ending = f"[reward {reward:g}{f', {note}' if note else ''}]"
        self._parts.append(f"{call}\n{text}\n{ending}")

    def text(self) -> str:
        """Return the whole episode.

        Returns:
            Its parts, separated by blank lines.
        """
        return "\n\n".join(self._parts)

    def last(self) -> str:
        """Return what was added last.

        Returns:
            The prompt or a step; ``""`` before the first episode.
        """
        return self._parts[-1] if self._parts else ""
