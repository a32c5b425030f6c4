"""Prompts as messages in the formats of OpenAI and Anthropic.

A prompt is a list of blocks, or, from newer servers, a list of messages with roles:
``{"role", "blocks"}``. Messages hold three more kinds of blocks: ``reasoning`` and
``tool_call`` in an assistant's message, ``tool_result`` in a user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ors_gym.formats.results import (
    ToolResult,
    to_anthropic_content,
    to_anthropic_tool_call,
    to_openai_content,
    to_openai_tool_call,
    tool_result_messages,
)
from ors_gym.observations.rendering import render_text
from ors_gym.types import Block, JSONObject, ToolCall

__all__ = ["to_anthropic_messages", "to_openai_messages"]

_MESSAGE_KINDS: Final = frozenset({"reasoning", "tool_call", "tool_result"})


def to_openai_messages(prompt: Sequence[JSONObject | Block]) -> list[JSONObject]:
    """Return a prompt as messages for OpenAI's chat completions.

    Args:
        prompt: Blocks, which become one user message, or messages with roles.

    Returns:
        ``ChatCompletionMessageParam`` dicts. Content without images is one string,
        which chat templates of text models take too. Reasoning is left out, since the
        API has no place for it.

    Example:
        >>> to_openai_messages([{"type": "text", "text": "Hi"}])
        [{'role': 'user', 'content': 'Hi'}]
    """
    messages: list[JSONObject] = []
    for role, blocks in _turns(prompt):
        results = _results(blocks)
        calls = [_call(block) for block in blocks if block.get("type") == "tool_call"]
        rest = [block for block in blocks if block.get("type") not in _MESSAGE_KINDS]
        messages += tool_result_messages(results)
        if role == "assistant":
            message: JSONObject = {"role": role, "content": render_text(rest)}
            if calls:
                message["content"] = message["content"] or None
                message["tool_calls"] = [to_openai_tool_call(*call) for call in calls]
            messages.append(message)
        elif rest or not results:
            parts = to_openai_content(rest)
            has_images = any(part["type"] != "text" for part in parts)
            # A system message holds only text.
            content = parts if has_images and role == "user" else render_text(rest)
            messages.append({"role": role, "content": content})
    return messages


def to_anthropic_messages(prompt: Sequence[JSONObject | Block]) -> JSONObject:
    """Return a prompt as arguments for Anthropic's messages.

    Args:
        prompt: Blocks, which become one user message, or messages with roles.

    Returns:
        ``messages``, and ``system`` if the prompt has system messages: keyword
        arguments of ``client.messages.create``. Reasoning without a signature is left
        out, since the API takes only reasoning that it signed.

    Example:
        >>> to_anthropic_messages([{"type": "text", "text": "Hi"}])
        {'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}]}]}
    """
    system: list[JSONObject] = []
    messages: list[JSONObject] = []
    for role, blocks in _turns(prompt):
        if role == "system":
            text: Block = {"type": "text", "text": render_text(blocks)}
            system += to_anthropic_content([text])
            continue
        content: list[JSONObject] = []
        for message in tool_result_messages(_results(blocks), "anthropic"):
            content += message["content"]
        for block in blocks:
            content += _to_anthropic(block, role)
        if content:
            messages.append({"role": role, "content": content})
    return (
        {"system": system, "messages": messages} if system else {"messages": messages}
    )


def _to_anthropic(block: Any, role: str) -> list[JSONObject]:
    """Return a block in its place; results have theirs at the message's beginning."""
    kind = block.get("type")
    if kind == "tool_result":
        return []
    if kind == "tool_call":
        return [to_anthropic_tool_call(*_call(block))]
    if kind == "reasoning":
        signature = block.get("signature")
        thinking = {"type": "thinking", "thinking": block.get("text", "")}
        return [{**thinking, "signature": signature}] if signature else []
    if role == "assistant":
        # An assistant's message cannot hold an image.
        block = {"type": "text", "text": render_text([block])}
    return to_anthropic_content([block])


def _turns(prompt: Sequence[Any]) -> Iterable[tuple[str, Sequence[Block]]]:
    """Return role and blocks of every message."""
    if prompt and "role" in prompt[0]:
        return [(message["role"], message["blocks"]) for message in prompt]
    return [("user", prompt)]


def _results(blocks: Iterable[Any]) -> list[ToolResult]:
    """Return the results among a message's blocks."""
    return [
        ToolResult(
            block.get("tool_call_id", ""),
            block.get("blocks", ()),
            bool(block.get("is_error")),
        )
        for block in blocks
        if block.get("type") == "tool_result"
    ]


def _call(block: Any) -> tuple[ToolCall, str]:
    """Return a call and its id."""
    call: ToolCall = {"tool": block.get("name", ""), "input": block.get("input") or {}}
    return call, block.get("id", "")
