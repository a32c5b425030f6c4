"""Tools, blocks, results and prompts in the formats of OpenAI and Anthropic.

The shapes are those of the chat completions API (``openai.types.chat``) and of the
messages API (``anthropic.types``), as plain dicts; neither library is needed. The way
back, from a model's message to tool calls, is `ors_gym.actions.parse_actions`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from ors_gym.actions.tool_names import provider_tool_name
from ors_gym.formats.provider_schema import provider_schema
from ors_gym.observations.rendering import (
    describe_block,
    render_text,
    replace_surrogates,
)
from ors_gym.types import Block, JSONObject, ToolCall, ToolSpec

__all__ = [
    "ToolResult",
    "to_anthropic_content",
    "to_anthropic_tool_call",
    "to_anthropic_tools",
    "to_openai_content",
    "to_openai_tool_call",
    "to_openai_tools",
    "tool_result_messages",
]

_MEDIA_TYPES: Final = {
    "image/gif": "image/gif",
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/webp": "image/webp",
}
"""What both providers take (``Base64ImageSourceParam``; OpenAI's vision guide)."""
_IMAGES_FOLLOW: Final = "Images of the tool results above, in order:"


@dataclasses.dataclass(frozen=True, slots=True)
class ToolResult:
    """What one call gave back, to be told to a model.

    Args:
        id: The id of the call that this answers.
        blocks: The output's blocks.
        is_error: Whether the call was refused or failed.
    """

    id: str
    blocks: Sequence[Block]
    is_error: bool = False


def to_openai_tools(tools: Iterable[ToolSpec]) -> list[JSONObject]:
    """Return tools for the ``tools`` argument of OpenAI's chat completions.

    Args:
        tools: The tools as the server lists them.

    Returns:
        ``ChatCompletionFunctionToolParam`` dicts. Names that OpenAI refuses are
        replaced by `provider_tool_name`; `parse_action`, given
        the tools, puts the server's names back.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> to_openai_tools([look])[0]["function"]["parameters"]
        {'type': 'object', 'properties': {}}
    """
    return [
        {
            "type": "function",
            "function": {
                "name": provider_tool_name(tool["name"]),
                "description": replace_surrogates(tool["description"]),
                "parameters": provider_schema(tool["input_schema"]),
            },
        }
        for tool in tools
    ]


def to_anthropic_tools(tools: Iterable[ToolSpec]) -> list[JSONObject]:
    """Return tools for the ``tools`` argument of Anthropic's messages.

    Args:
        tools: The tools as the server lists them.

    Returns:
        ``ToolParam`` dicts, with names as in `to_openai_tools`.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> to_anthropic_tools([look])[0]["input_schema"]
        {'type': 'object', 'properties': {}}
    """
    return [
        {
            "name": provider_tool_name(tool["name"]),
            "description": replace_surrogates(tool["description"]),
            "input_schema": provider_schema(tool["input_schema"]),
        }
        for tool in tools
    ]


def to_openai_tool_call(call: ToolCall, call_id: str) -> JSONObject:
    """Return a call as it stands in an assistant's message of OpenAI.

    Args:
        call: The call.
        call_id: The id that its result names.

    Returns:
        A ``ChatCompletionMessageFunctionToolCallParam`` dict.

    Example:
        >>> to_openai_tool_call({"tool": "add", "input": {"a": 1}}, "c1")["function"]
        {'name': 'add', 'arguments': '{"a": 1}'}
    """
    function = {
        "name": provider_tool_name(call["tool"]),
        "arguments": json.dumps(call["input"]),
    }
    return {"id": call_id, "type": "function", "function": function}


def to_anthropic_tool_call(call: ToolCall, call_id: str) -> JSONObject:
    """Return a call as it stands in an assistant's message of Anthropic.

    Args:
        call: The call.
        call_id: The id that its result names.

    Returns:
        A ``ToolUseBlockParam`` dict.

    Example:
        >>> to_anthropic_tool_call({"tool": "look", "input": {}}, "t1")
        {'type': 'tool_use', 'id': 't1', 'name': 'look', 'input': {}}
    """
    return {
        "type": "tool_use",
        "id": call_id,
        "name": provider_tool_name(call["tool"]),
        "input": call["input"],
    }


def to_openai_content(blocks: Iterable[Block]) -> list[JSONObject]:
    """Return blocks as content parts of an OpenAI user message.

    Args:
        blocks: Blocks of a prompt or an output. What OpenAI does not take is
            described as text.

    Returns:
        ``ChatCompletionContentPartParam`` dicts: text, and images as data URLs.

    Example:
        >>> png = {"type": "image", "data": "iVBORw0K", "mimeType": "image/png"}
        >>> to_openai_content([png])[0]["image_url"]
        {'url': 'data:image/png;base64,iVBORw0K'}
    """
    return [_openai_image(block) or _text_part(block) for block in blocks]


def to_anthropic_content(blocks: Iterable[Block]) -> list[JSONObject]:
    """Return blocks as content blocks of an Anthropic message.

    Args:
        blocks: Blocks of a prompt or an output. What Anthropic does not take is
            described as text; blank text, which it refuses, is left out.

    Returns:
        ``TextBlockParam`` and ``ImageBlockParam`` dicts.

    Example:
        >>> png = {"type": "image", "data": "iVBORw0K", "mimeType": "image/png"}
        >>> to_anthropic_content([{"type": "text", "text": " "}, png])[0]["source"]
        {'type': 'base64', 'media_type': 'image/png', 'data': 'iVBORw0K'}
    """
    parts = [_anthropic_image(block) or _text_part(block) for block in blocks]
    return [part for part in parts if part["type"] == "image" or part["text"].strip()]


def tool_result_messages(
    results: Sequence[ToolResult],
    format: Literal["openai", "anthropic"] = "openai",
    images: Literal["user", "tool"] | None = None,
) -> list[JSONObject]:
    """Return the messages that answer the calls of one assistant turn.

    Args:
        results: The results, in the order of the calls.
        format: Whose messages.
        images: Where images go: ``"tool"``, into the results; or ``"user"``, together
            into user content after all results, with ``[image: mime, WxH]`` in their
            place. By default what the provider takes: ``"user"`` for OpenAI, whose
            tool messages hold only text, and ``"tool"`` for Anthropic.

    Returns:
        For OpenAI one ``tool`` message per result, and at most one ``user`` message;
        for Anthropic one ``user`` message, with the results first as it requires.

    Example:
        >>> result = ToolResult("c1", [{"type": "text", "text": "4"}])
        >>> tool_result_messages([result])
        [{'role': 'tool', 'tool_call_id': 'c1', 'content': '4'}]
        >>> tool_result_messages([result], "anthropic")[0]["content"][0]["type"]
        'tool_result'
    """
    if not results:
        return []
    if format == "openai":
        return _openai_results(results, images or "user")
    return _anthropic_results(results, images or "tool")


def _openai_results(results: Sequence[ToolResult], images: str) -> list[JSONObject]:
    messages: list[JSONObject] = []
    for result in results:
        content: Any = render_text(result.blocks)
        if images == "tool" and any(map(_openai_image, result.blocks)):
            content = to_openai_content(result.blocks)
        messages.append({"role": "tool", "tool_call_id": result.id, "content": content})
    shown = _images_of(results, _openai_image) if images == "user" else []
    if shown:
        heading = {"type": "text", "text": _IMAGES_FOLLOW}
        messages.append({"role": "user", "content": [heading, *shown]})
    return messages


def _anthropic_results(results: Sequence[ToolResult], images: str) -> list[JSONObject]:
    content: list[JSONObject] = []
    for result in results:
        blocks = result.blocks
        if images == "user":
            blocks = [{"type": "text", "text": render_text(blocks)}]
        answer: JSONObject = {
            "type": "tool_result",
            "tool_use_id": result.id,
            "content": to_anthropic_content(blocks),
        }
        if result.is_error:
            answer["is_error"] = True
        content.append(answer)
    shown = _images_of(results, _anthropic_image) if images == "user" else []
    if shown:
        content += [{"type": "text", "text": _IMAGES_FOLLOW}, *shown]
    return [{"role": "user", "content": content}]


def _images_of(
    results: Iterable[ToolResult], convert: Callable[[Block], JSONObject | None]
) -> list[JSONObject]:
    """Return the images of all results in a provider's shape."""
    parts = (convert(block) for result in results for block in result.blocks)
    return [part for part in parts if part is not None]


def _text_part(block: Block) -> JSONObject:
    return {"type": "text", "text": replace_surrogates(describe_block(block))}


def _openai_image(block: Block) -> JSONObject | None:
    """Return an image OpenAI takes, or None if the block is something else."""
    source = _image_source(block)
    if source is None:
        return None
    url = f"data:{source[0]};base64,{source[1]}"
    return {"type": "image_url", "image_url": {"url": url}}


def _anthropic_image(block: Block) -> JSONObject | None:
    """Return an image Anthropic takes, or None if the block is something else."""
    source = _image_source(block)
    if source is None:
        return None
    media_type, data = source
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


def _image_source(block: Block) -> tuple[str, str] | None:
    """Return media type and base64 of an image of a kind that providers take."""
    data = block.get("data")
    media_type = _MEDIA_TYPES.get(str(block.get("mimeType")).lower())
    if block.get("type") != "image" or not isinstance(data, str) or not media_type:
        return None
    return media_type, data
