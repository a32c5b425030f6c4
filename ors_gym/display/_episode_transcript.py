"""An `Episode` of a policy, read as a transcript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ors_gym.display._transcript import NOT_RUN, Entry, write_call
from ors_gym.formats._blocks import render_text
from ors_gym.rollout._episode import (
    Episode,
    Step,
    Turn,
    assistant_blocks,
    is_recorded_call,
    turns_with_steps,
)

__all__ = ["episode_entries", "step_entry"]


def episode_entries(episode: Episode) -> Iterator[Entry]:
    """Yield the prompt, steps, words beside no call, and calls that were not run."""
    yield Entry(render_text(episode.prompt), episode.prompt)
    for turn, steps in turns_with_steps(episode):
        said = _words_of(turn)
        for step in steps:
            yield step_entry(step, said)
            said = ""
        if said:
            yield Entry("", said=said)
        for action in turn.actions[len(steps) :]:
            if is_recorded_call(action):
                call = write_call(action["tool"], action["input"])
                yield Entry("", call=call, note=NOT_RUN)


def step_entry(step: Step, said: str = "") -> Entry:
    """Return the entry of one step."""
    return Entry.of_step(
        step.tool,
        step.input,
        render_text(step.reply),
        step.reward,
        error_kind=step.error_kind,
        finished=step.finished,
        truncated=step.truncated,
        blocks=step.reply,
        said=said,
    )


def _words_of(turn: Turn) -> str:
    """Return what the policy said beside its calls."""
    blocks: list[Any] = assistant_blocks(turn)
    return render_text([block for block in blocks if block["type"] == "text"])
