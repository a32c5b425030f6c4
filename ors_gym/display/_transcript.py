"""An episode as a person reads it: what was said, called, shown and paid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

from ors_gym.display._style import reward_colour
from ors_gym.formats._blocks import replace_surrogates
from ors_gym.types import Block

__all__ = ["NOT_RUN", "Entry", "Transcript", "describe_end", "write_call"]

NOT_RUN: Final = "not run"
"""The note of a call that was not made, because the episode was over."""


def write_call(tool: str, tool_input: dict[str, Any]) -> str:
    """Return a tool call in one line.

    Args:
        tool: The tool's name; ``""`` for an action that could not be read.
        tool_input: Its arguments.

    Example:
        >>> write_call("move", {"direction": "up", "squares": 2})
        'move(direction="up", squares=2)'
    """
    if not tool:
        return "(no tool call)"
    arguments = (
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in tool_input.items()
    )
    return replace_surrogates(f"{tool}({', '.join(arguments)})")


def describe_end(error_kind: str, *, finished: bool, truncated: bool) -> str:
    """Return a step's note: what went wrong, or else how the episode ended with it.

    Args:
        error_kind: ``info["error_kind"]`` of the step, ``""`` if nothing went wrong.
        finished: Whether the server finished the episode with it (``terminated``).
        truncated: Whether the episode was cut short with it.

    Example:
        >>> describe_end("", finished=True, truncated=True)
        'finished'
        >>> describe_end("tool_failed", finished=True, truncated=False)
        'tool_failed'
    """
    if error_kind or finished:
        return error_kind or "finished"
    return "truncated" if truncated else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """The prompt of an episode, or one step of it.

    Args:
        text: What came back, as an observation shows it.
        blocks: The same as blocks; none for an error.
        call: The call in one line; ``""`` for the prompt.
        reward: The step's reward.
        note: How the episode ended, or what went wrong, in a few words.
        failed: Whether something went wrong.
        said: What the policy said beside its call, where that is known.
    """

    text: str
    blocks: Sequence[Block] = ()
    call: str = ""
    reward: float = 0.0
    note: str = ""
    failed: bool = False
    said: str = ""

    @property
    def ending(self) -> str:
        """The step's reward and note in one line; ``""`` for the prompt."""
        if not self.call:
            return ""
        return f"[reward {self.reward:g}{f', {self.note}' if self.note else ''}]"

    @property
    def mood(self) -> str:
        """The name of its colour: ``accent`` for what is no step."""
        if not self.call:
            return "accent"
        if self.failed and not self.reward:
            return "bad"
        return reward_colour(self.reward)

    def __str__(self) -> str:
        if not self.call:
            return self.text
        return f"> {self.call}\n{self.text}\n{self.ending}"


class Transcript:
    """Collects an episode.

    Attributes:
        entries: The prompt and the steps.
        title: What is played.
        task: Which task of it.

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
        self.entries: list[Entry] = []
        self.title = self.task = ""

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return max(len(self.entries) - 1, 0)

    @property
    def total(self) -> float:
        """The reward so far."""
        return sum(entry.reward for entry in self.entries)

    def start(
        self,
        prompt: str,
        *,
        blocks: Sequence[Block] = (),
        title: str = "",
        task: str = "",
    ) -> None:
        """Begin an episode.

        Args:
            prompt: The prompt's text.
            blocks: The prompt's blocks.
            title: What is played.
            task: Which task of it.
        """
        self.entries = [Entry(prompt, blocks)]
        self.title, self.task = title, task

    def step(
        self,
        tool: str,
        tool_input: dict[str, Any],
        text: str,
        reward: float,
        note: str = "",
        *,
        blocks: Sequence[Block] = (),
        failed: bool = False,
    ) -> None:
        """Add a step.

        Args:
            tool: The tool's name; ``""`` for an action that could not be read.
            tool_input: Its arguments.
            text: What came back.
            reward: The step's reward.
            note: How the episode ended, or what went wrong, in a few words.
            blocks: What came back, as blocks; none for an error.
            failed: Whether something went wrong.
        """
        call = write_call(tool, tool_input)
        self.entries.append(Entry(text, blocks, call, reward, note, failed))

    def text(self) -> str:
        """Return the whole episode.

        Returns:
            Its parts, separated by blank lines.
        """
        return "\n\n".join(map(str, self.entries))

    def last(self) -> str:
        """Return what was added last.

        Returns:
            The prompt or a step; ``""`` before the first episode.
        """
        return str(self.entries[-1]) if self.entries else ""
