"""Trajectories of ATIF, the Agent Trajectory Interchange Format: a JSON file each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ors_gym.errors import import_extra
from ors_gym.evaluation._export.items import Content, Item
from ors_gym.formats import to_openai_tools
from ors_gym.formats._blocks import (
    IMAGE_ENDINGS,
    decode_base64,
    describe_block,
    read_media_type,
    render_text,
    replace_surrogates,
)
from ors_gym.rollout import Episode, Step, Turn
from ors_gym.rollout._episode import (
    assistant_blocks,
    is_recorded_call,
    not_run,
    turns_with_steps,
)
from ors_gym.rollout._output import Record
from ors_gym.types import Block, JSONObject

_VERSION: Final = "ATIF-v1.8"
_IMAGES: Final = "images"


def write_trajectories(
    directory: Path, items: Iterator[Item], content: Content
) -> None:
    """Write a file for each episode, checked by the models of the package `atif`."""
    atif = import_extra("atif", "export", "An export to ATIF")
    directory.mkdir()
    writer = _Writer(directory, content.head)
    for number, record in enumerate(items):
        assert isinstance(record, Record)  # noqa: S101 - it takes no pairs
        # pydantic refuses lone surrogates.
        text = json.dumps(writer.trajectory(record), ensure_ascii=False)
        trajectory = atif.Trajectory.model_validate_json(replace_surrogates(text))
        path = directory / f"{number:06}.json"
        path.write_text(json.dumps(trajectory.to_json_dict()), encoding="ascii")


class _Writer:
    """Turns episodes into trajectories, and keeps their images in files."""

    def __init__(self, directory: Path, head: JSONObject) -> None:
        self._directory = directory
        self._head = head

    def trajectory(self, record: Record) -> JSONObject:
        episode = record.episode
        steps = [*self._prompt(episode)]
        steps += (self._turn(episode, *one) for one in turns_with_steps(episode))
        usages = [one["metrics"] for one in steps if "metrics" in one]
        result = record.result()
        about = ("split", "episode", "total_reward", "success", "stop_reason")
        return {
            "schema_version": _VERSION,
            "trajectory_id": f"{episode.split}/{episode.task_index}/{episode.number}",
            "agent": {
                "name": str(self._head.get("policy") or "policy"),
                "version": str(self._head.get("version") or "unknown"),
                "tool_definitions": to_openai_tools(episode.tools),
            },
            "steps": [{"step_id": n, **step} for n, step in enumerate(steps, 1)],
            "final_metrics": {
                "total_steps": len(steps),
                **{f"total_{k}": v for k, v in _sum(usages).items()},
            },
            "extra": {
                "environment": episode.environment,
                "task_index": episode.task_index,
                **{name: result[name] for name in about},
            },
        }

    def _prompt(self, episode: Episode) -> Iterator[JSONObject]:
        """Yield what the environment said before the first turn."""
        given: list[JSONObject] = [{"role": "user", "blocks": episode.prompt}]
        for message in episode.conversation or given:
            role, blocks = message["role"], message["blocks"]
            if role != "assistant":
                source = "system" if role == "system" else "user"
                yield {"source": source, "message": self._content(blocks)}
                continue
            # Written by the environment's author.
            said = [b for b in blocks if b.get("type") != "reasoning"]
            shown = {"message": render_text(said), "is_copied_context": True}
            yield {"source": "agent", **shown}

    def _turn(self, episode: Episode, turn: Turn, steps: Sequence[Step]) -> JSONObject:
        said = [block for block in assistant_blocks(turn) if block["type"] == "text"]
        made: JSONObject = {"source": "agent", "message": render_text(said)}
        calls: list[JSONObject] = []
        results: list[JSONObject] = []
        for place, action in enumerate(turn.actions):
            result: JSONObject = {}
            if is_recorded_call(action):
                result["source_call_id"] = turn.call_ids[place]
                calls.append(
                    {
                        "tool_call_id": turn.call_ids[place],
                        "function_name": action["tool"],
                        "arguments": action["input"],
                    }
                )
            if place < len(steps):
                step = steps[place]
                result |= {"content": self._content(step.reply), "extra": _about(step)}
                results.append(result)
            elif calls:
                results.append(result | {"content": not_run(episode.stop_reason)})
        thoughts = _get(turn.message, "reasoning_content")
        if isinstance(thoughts, str) and thoughts:
            made["reasoning_content"] = thoughts
        if calls:
            made["tool_calls"] = calls
        if results:
            made["observation"] = {"results": results}
        if metrics := _read_usage(turn) | _read_tokens(turn):
            made["metrics"] = metrics
        return made

    def _content(self, blocks: Sequence[Block]) -> Any:
        """Return text, or parts where there is an image."""
        if not any(block.get("type") == "image" for block in blocks):
            return render_text(blocks)
        return [self._part(block) for block in blocks]

    def _part(self, block: Block) -> JSONObject:
        """Return a block as text, or as the path of the file that its image is in."""
        media_type = read_media_type(block)
        if block.get("type") == "image" and media_type in IMAGE_ENDINGS:
            try:
                data = decode_base64(block.get("data"))
            except ValueError:
                return {"type": "text", "text": describe_block(block)}
            # The same image of several steps is one file.
            name = (
                f"{hashlib.sha256(data).hexdigest()[:32]}.{IMAGE_ENDINGS[media_type]}"
            )
            path = self._directory / _IMAGES / name
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            source = {"media_type": media_type, "path": f"{_IMAGES}/{name}"}
            return {"type": "image", "source": source}
        return {"type": "text", "text": describe_block(block)}


def _about(step: Step) -> JSONObject:
    return {
        "reward": None if step.reward_is_null else step.reward,
        "finished": step.finished,
        "error_kind": step.error_kind,
        "seconds": step.seconds,
    }


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _read_usage(turn: Turn) -> dict[str, int]:
    """Return the counts of tokens that a chat API gave with a turn."""
    usage = _get(turn.extra, "usage")
    found = {
        "prompt_tokens": _get(usage, "prompt_tokens"),
        "completion_tokens": _get(usage, "completion_tokens"),
        "cached_tokens": _get(_get(usage, "prompt_tokens_details"), "cached_tokens"),
    }
    return {name: count for name, count in found.items() if isinstance(count, int)}


def _read_tokens(turn: Turn) -> JSONObject:
    """Return the tokens that were sampled, where a policy of tokens recorded them."""
    tokens = turn.tokens
    if tokens is None:
        return {}
    found: JSONObject = {"completion_token_ids": tokens.ids}
    if tokens.logprobs is not None:
        found["logprobs"] = tokens.logprobs
    return found | {"completion_tokens": len(tokens.ids)}


def _sum(usages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the totals of the counts."""
    counts = ("prompt_tokens", "completion_tokens", "cached_tokens")
    names = [name for name in counts if any(name in usage for usage in usages)]
    return {name: sum(usage.get(name, 0) for usage in usages) for name in names}
