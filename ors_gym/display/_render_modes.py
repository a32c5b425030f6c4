"""Records the episode of an env and shows it as the env's render mode says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ors_gym.display._picture import draw_transcript, require_drawing
from ors_gym.display._terminal import print_entry
from ors_gym.display._transcript import Entry, Transcript
from ors_gym.types import Block, ToolCall


class Renderer:
    """The render mode of one env: ``ansi``, ``human`` or ``rgb_array``."""

    def __init__(self, mode: str) -> None:
        if mode == "rgb_array":
            require_drawing()
        self._mode = mode
        self.transcript = Transcript()

    def record_prompt(
        self, text: str, blocks: Sequence[Block], environment: str, task: str
    ) -> None:
        """Begin a new episode with its prompt."""
        self.transcript.start(text, blocks=blocks, title=environment, task=task)

    def record_step(
        self,
        call: ToolCall,
        text: str,
        result: tuple[Any, float, bool, bool, dict[str, Any]],
    ) -> None:
        """Add one step, with what the env returned for it."""
        _, reward, terminated, truncated, info = result
        step = Entry.of_step(
            call["tool"],
            call["input"],
            text,
            reward,
            error_kind=info["error_kind"],
            finished=terminated,
            truncated=truncated,
            blocks=info["blocks"],
        )
        self.transcript.add(step)

    def render(self) -> str | NDArray[np.uint8] | None:
        """Show the episode; ``human`` prints its newest entry and returns None."""
        if self._mode == "rgb_array":
            return draw_transcript(self.transcript)
        if self._mode == "human":
            for entry in self.transcript.entries[-1:]:
                print_entry(entry)
            return None
        return self.transcript.text()
