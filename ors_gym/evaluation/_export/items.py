"""What writers are given: episodes, or pairs of them, as conversations."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

from ors_gym.formats import to_openai_tools
from ors_gym.formats._messages import to_openai_messages
from ors_gym.rollout import Episode
from ors_gym.rollout._output import Record
from ors_gym.types import JSONObject


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two episodes of one task, the better one and the worse one."""

    chosen: Record
    rejected: Record

    @property
    def prompts_differ(self) -> bool:
        one, other = self.chosen.episode, self.rejected.episode
        return prompt_of(one) != prompt_of(other) or one.tools != other.tools


Item: TypeAlias = Record | Pair


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What a writer is told before it is given the first item."""

    head: JSONObject
    pairs: bool
    images: bool  # whether any episode holds one


def prompt_of(episode: Episode) -> list[JSONObject]:
    """Return the messages that an episode begins with, before the first turn."""
    return to_openai_messages(episode.conversation or episode.prompt)


def to_conversation(item: Item) -> JSONObject:
    """Return the columns that hold messages and tools, in the form of OpenAI."""
    if isinstance(item, Record):
        messages = item.episode.messages()
        return {"messages": messages, "tools": to_openai_tools(item.episode.tools)}
    better, worse = item.chosen.episode, item.rejected.episode
    prompt = prompt_of(better)
    return {
        "prompt": prompt,
        "chosen": better.messages()[len(prompt) :],
        "rejected": worse.messages()[len(prompt) :],
        "tools": to_openai_tools(better.tools),
    }


def describe(item: Item) -> JSONObject:
    """Return the columns that say which episode it is and how it went."""
    if isinstance(item, Record):
        return {**_task_of(item.episode), **_outcome_of(item)}
    outcomes: dict[str, Any] = {}
    for which, record in (("chosen", item.chosen), ("rejected", item.rejected)):
        found = _outcome_of(record).items()
        outcomes |= {f"{which}_{name}": value for name, value in found}
    return {**_task_of(item.chosen.episode), **outcomes}


def _task_of(episode: Episode) -> JSONObject:
    return {
        "environment": episode.environment,
        "split": episode.split,
        "task_index": episode.task_index,
    }


def _outcome_of(record: Record) -> JSONObject:
    episode = record.episode
    return {
        "episode": episode.number,
        "total_reward": episode.total_reward,
        "success": record.success,
        "steps": len(episode.steps),
        "stop_reason": episode.stop_reason,
    }
