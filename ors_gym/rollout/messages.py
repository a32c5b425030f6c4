"""An episode as a conversation, in which every tool call is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ors_gym.formats.prompts import to_openai_messages
from ors_gym.rollout.turn import Step, Turn, with_steps
from ors_gym.types import Block, JSONObject

__all__ = ["chat_messages", "is_call", "not_run", "ors_messages"]

_CALL_TAG: Final = "<tool_call>"


def ors_messages(
    prompt: Sequence[Block], turns: Sequence[Turn], steps: Sequence[Step], end: str
) -> list[JSONObject]:
    """Return an episode as messages of blocks.

    Args:
        prompt: The prompt's blocks.
        turns: The turns.
        steps: What came of them.
        end: Why the episode ended, for the calls that were not run.

    Returns:
        Objects with ``role`` and ``blocks``, tool results in the user's messages.
    """
    messages: list[JSONObject] = [{"role": "user", "blocks": list(prompt)}]
    for turn, played in with_steps(turns, steps):
        said = _assistant(turn)
        if said:
            messages.append({"role": "assistant", "blocks": said})
        answers = list(_answers(turn, played, end))
        if answers:
            messages.append({"role": "user", "blocks": answers})
    return messages


def chat_messages(
    prompt: Sequence[Block], turns: Sequence[Turn], steps: Sequence[Step], end: str
) -> list[JSONObject]:
    """Return an episode as messages of OpenAI's chat completions.

    A turn whose message is one of that API already stays as it is. Another's calls
    are written as ``tool_calls``.

    Args:
        prompt: The prompt's blocks.
        turns: The turns.
        steps: What came of them.
        end: Why the episode ended, for the calls that were not run.

    Returns:
        The messages.
    """
    messages = to_openai_messages(prompt)
    for turn, played in with_steps(turns, steps):
        by_id = False
        if _is_chat_message(turn):
            messages.append(dict(turn.message))
            by_id = bool(turn.message.get("tool_calls"))
        elif said := _assistant(turn):
            messages += to_openai_messages([{"role": "assistant", "blocks": said}])
        answers = list(_answers(turn, played, end, by_id=by_id))
        if answers:
            messages += to_openai_messages([{"role": "user", "blocks": answers}])
    return messages


def _assistant(turn: Turn) -> list[JSONObject]:
    """Return the blocks of an assistant's message: its text, then its calls."""
    text = _text_of(turn)
    blocks: list[JSONObject] = [{"type": "text", "text": text}] if text else []
    for call_id, action in zip(turn.call_ids, turn.actions, strict=True):
        if is_call(action):
            name, given = action["tool"], action["input"]
            blocks.append(
                {"type": "tool_call", "id": call_id, "name": name, "input": given}
            )
    return blocks


def _text_of(turn: Turn) -> str:
    """Return what the policy said beside its calls."""
    message = turn.message
    if isinstance(message, Mapping):
        message = message.get("content")
    if isinstance(message, list):
        texts = [part.get("text") for part in message if isinstance(part, Mapping)]
        message = "\n\n".join(text for text in texts if isinstance(text, str))
    if message is None:
        plain = [action for action in turn.actions if isinstance(action, str)]
        message = "\n\n".join(plain)
    if not isinstance(message, str):
        return ""
    if any(is_call(action) for action in turn.actions):
        # The calls follow as such; what is left of JSON calls is nothing.
        message = message.partition(_CALL_TAG)[0].strip()
        return "" if message.startswith(("{", "[")) else message
    return message


def _answers(
    turn: Turn, steps: Sequence[Step], end: str, *, by_id: bool = False
) -> Iterator[JSONObject]:
    """Yield what the policy was told: a result for each call, else plain text.

    With ``by_id`` what could not be read as a call has an id in the message too.
    """
    for place, action in enumerate(turn.actions):
        step = steps[place] if place < len(steps) else None
        if step is not None:
            blocks: list[Any] = list(step.reply)
        elif by_id or is_call(action):
            blocks = [{"type": "text", "text": not_run(end)}]
        else:
            continue
        if by_id or is_call(action):
            yield {
                "type": "tool_result",
                "tool_call_id": turn.call_ids[place],
                "blocks": blocks,
                "is_error": step is None or bool(step.error),
            }
        else:
            yield from blocks


def not_run(end: str) -> str:
    """Return what answers a call that was not run.

    Args:
        end: Why the episode ended; ``""`` while it goes on.

    Example:
        >>> not_run("finished")
        'not run: episode finished'
    """
    if end == "finished":
        return "not run: episode finished"
    return f"not run: the episode ended ({end})" if end else "not run yet"


def _is_chat_message(turn: Turn) -> bool:
    """Say whether the message is one of a chat API whose calls are the turn's."""
    message = turn.message
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return False
    calls = message.get("tool_calls") or []
    if not calls:
        content = message.get("content")
        return not any(map(is_call, turn.actions)) and isinstance(content, str)
    if not isinstance(calls, list) or not all(map(_is_chat_call, calls)):
        return False
    ids = [call["id"] for call in calls]
    return ids == turn.call_ids and len(set(ids)) == len(ids)


def _is_chat_call(call: Any) -> bool:
    if not isinstance(call, Mapping) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("arguments"), str)


def is_call(action: Any) -> bool:
    """Say whether a turn's action is a call that was read.

    Args:
        action: One of ``Turn.actions`` as an episode keeps them.

    Example:
        >>> is_call({"tool": "look", "input": {}}), is_call({"invalid": "no JSON"})
        (True, False)
    """
    return isinstance(action, Mapping) and "tool" in action
