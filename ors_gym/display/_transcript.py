"""An episode as a person reads it: what was said, called, shown and paid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Final

from ors_gym._shown_text import clean
from ors_gym.formats._blocks import replace_surrogates
from ors_gym.types import Block

NOT_RUN: Final = "not run"
"""The note of a call that was not made, because the episode was over."""


class Transcript:
    """Collects an episode: the prompt, then the steps.

    Attributes:
        entries: The prompt and the steps.
        title: The environment's name.
        task: Which of its tasks is played.

    Example:
        >>> transcript = Transcript()
        >>> transcript.start("What is 2 + 2?")
        >>> call = "submit", {"answer": "4"}
        >>> transcript.add(Entry.of_step(*call, "Right.", 1.0, finished=True))
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
        """Begin an episode; the one before is forgotten."""
        self.entries = [Entry(prompt, blocks)]
        self.title, self.task = title, task

    def add(self, step: Entry) -> None:
        """Add a step."""
        self.entries.append(step)

    def text(self) -> str:
        """Return the whole episode, its entries separated by blank lines."""
        return clean("\n\n".join(map(str, self.entries)))


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

    @classmethod
    def of_step(
        cls,
        tool: str,
        tool_input: dict[str, Any],
        text: str,
        reward: float,
        *,
        error_kind: str = "",
        finished: bool = False,
        truncated: bool = False,
        blocks: Sequence[Block] = (),
        said: str = "",
    ) -> Entry:
        """Return the entry of a step; what went wrong is noted before how it ended."""
        note = error_kind or ("finished" if finished else "")
        if truncated and not note:
            note = "truncated"
        call = write_call(tool, tool_input)
        return cls(text, blocks, call, reward, note, bool(error_kind), said)

    @property
    def ending(self) -> str:
        """The step's reward and note in one line; ``""`` for the prompt."""
        if not self.call:
            return ""
        return f"[reward {self.reward:g}{f', {self.note}' if self.note else ''}]"

    @property
    def mood(self) -> str:
        """The name of its colour, wherever it is shown; ``accent`` for the prompt."""
        if not self.call:
            return "accent"
        if self.failed and not self.reward:
            return "bad"
        return reward_colour(self.reward)

    def __str__(self) -> str:
        if not self.call:
            return self.text
        return f"> {self.call}\n{self.text}\n{self.ending}"


def write_call(tool: str, tool_input: dict[str, Any]) -> str:
    """Return a tool call in one line; no tool stands for an unreadable action.

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


def reward_colour(reward: float) -> str:
    """Return the name of a reward's colour.

    Example:
        >>> reward_colour(1.0), reward_colour(-0.5), reward_colour(0.0)
        ('good', 'bad', 'muted')
    """
    if reward == 0:
        return "muted"
    return "good" if reward > 0 else "bad"
