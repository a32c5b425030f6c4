"""An episode as a notebook shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ors_gym.display._html import Fact, conversation_card, reward_fact
from ors_gym.display._transcript import NOT_RUN, Entry, describe_end, write_call
from ors_gym.formats._blocks import render_text
from ors_gym.rollout._episode import (
    Step,
    Turn,
    assistant_blocks,
    is_recorded_call,
    turns_with_steps,
)

if TYPE_CHECKING:
    from ors_gym.rollout._episode import Episode

__all__ = ["episode_card", "episode_entries"]


def episode_card(episode: Episode) -> str:
    """Return an episode as a card of HTML.

    Args:
        episode: The episode, over or not.
    """
    split = f" of {episode.split}" if episode.split else ""
    task = f"task {episode.task_index}{split}" if episode.task_index >= 0 else ""
    total, reason = episode.total_reward, episode.stop_reason
    steps = f"{len(episode.steps)} step" + ("" if len(episode.steps) == 1 else "s")
    paid = Fact("no outcome", "bad") if total is None else reward_fact(total)
    facts = [
        Fact(task) if task else None,
        Fact(steps),
        Fact(f"{episode.seconds:.2f} s") if episode.seconds else None,
        paid,
        Fact(reason, "bad" if reason == "error" else "accent") if reason else None,
        Fact(f"{episode.error_kind}: {episode.error}", "bad")
        if episode.error
        else None,
    ]
    return conversation_card(episode.environment, list(episode_entries(episode)), facts)


def episode_entries(episode: Episode) -> Iterator[Entry]:
    """Yield an episode's prompt and its steps as a transcript has them.

    Args:
        episode: The episode.
    """
    yield Entry(render_text(episode.prompt), episode.prompt)
    for turn, steps in turns_with_steps(episode):
        said = _said(turn)
        for step in steps:
            yield _entry(step, said)
            said = ""
        if said:
            yield Entry("", said=said)
        for action in turn.actions[len(steps) :]:
            if is_recorded_call(action):
                call = write_call(action["tool"], action["input"])
                yield Entry("", call=call, note=NOT_RUN)


def _entry(step: Step, said: str) -> Entry:
    end = describe_end(
        step.error_kind, finished=step.finished, truncated=step.truncated
    )
    return Entry(
        render_text(step.reply),
        step.reply,
        write_call(step.tool, step.input),
        step.reward,
        end,
        failed=bool(step.error_kind),
        said=said,
    )


def _said(turn: Turn) -> str:
    """Return what the policy said beside its calls."""
    blocks: list[Any] = assistant_blocks(turn)
    return render_text([block for block in blocks if block["type"] == "text"])
