"""Prompts, calls and results as messages of OpenAI, Anthropic and MCP."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from ors_gym.formats._blocks import (
    describe_block,
    make_encodable,
    read_media_type,
    render_text,
    replace_surrogates,
)
from ors_gym.formats._tools import provider_tool_name
from ors_gym.types import Block, JSONObject, ToolCall

_MESSAGE_KINDS: Final = frozenset({"reasoning", "tool_call", "tool_result"})


def to_openai_messages(prompt: Sequence[JSONObject | Block]) -> list[JSONObject]:
    """Return a prompt as messages for OpenAI's chat completions.

    Args:
        prompt: Blocks, which become one user message, or messages with roles.

    Returns:
        ``ChatCompletionMessageParam`` dicts. Content without images is one string,
        which chat templates of text models take as well. Reasoning is
        ``reasoning_content`` of an assistant's message, the name that vLLM, SGLang and
        chat templates give it. OpenAI's own API has no place for it and refuses it.

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
            if thoughts := _reasoning(blocks):
                message["reasoning_content"] = thoughts
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


def has_roles(conversation: Sequence[JSONObject]) -> bool:
    """Return whether a prompt is more than one message of the user's."""
    return [message["role"] for message in conversation] not in ([], ["user"])


def to_template_messages(messages: Sequence[JSONObject]) -> list[JSONObject]:
    """Return chat messages as chat templates of Hugging Face take them.

    Args:
        messages: Messages of OpenAI's chat completions.

    Returns:
        The same, with the arguments of calls as objects in place of JSON text, and
        with the tool's name in each result of a call.

    Example:
        >>> call = to_openai_tool_call({"tool": "add", "input": {"a": 1}}, "c1")
        >>> said = {"role": "assistant", "content": "", "tool_calls": [call]}
        >>> result = {"role": "tool", "tool_call_id": "c1", "content": "1"}
        >>> said, result = to_template_messages([said, result])
        >>> said["tool_calls"][0]["function"], result["name"]
        ({'name': 'add', 'arguments': {'a': 1}}, 'add')
    """
    names = called_names(messages)
    converted = []
    for message in messages:
        shown = dict(message)
        if calls := message.get("tool_calls"):
            shown["content"] = message.get("content") or ""
            shown["tool_calls"] = [_with_object(call) for call in calls]
        if message["role"] == "tool":
            shown["name"] = names.get(message["tool_call_id"], "")
        converted.append(shown)
    return converted


def block_of_part(part: JSONObject) -> Block:
    """Undo `to_openai_content` for one part."""
    if part["type"] != "image_url":
        return {"type": "text", "text": part["text"]}
    media_type, _, data = part["image_url"]["url"].partition(";base64,")
    media_type = media_type.removeprefix("data:")
    return {"type": "image", "data": data, "mimeType": media_type}


def with_calls_as_text(message: JSONObject) -> JSONObject:
    """Return a message for a chat template that knows no tools, nor reasoning.

    Its calls are text, as `describe_tools` has models write them.
    """
    calls = [_with_object(call)["function"] for call in message.get("tool_calls") or ()]
    if not calls:
        return {k: one for k, one in message.items() if k != "reasoning_content"}
    written = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls]
    text = "\n".join(filter(None, (message.get("content"), *written)))
    return {"role": message["role"], "content": text}


def called_names(messages: Iterable[JSONObject]) -> dict[str, str]:
    """Return the name of the tool that each id of a call stands for."""
    return {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
    }


def _with_object(call: JSONObject) -> JSONObject:
    function = call["function"]
    arguments = function["arguments"]
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        # As a model wrote it, who reads beside it what was wrong.
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def join_system_messages(
    before: Sequence[JSONObject], messages: Sequence[JSONObject]
) -> list[JSONObject]:
    """Return one conversation after another, with one system message at its beginning.

    Many chat templates refuse a second one.
    """
    both = [*before, *messages]
    system = [one["content"] for one in both if one["role"] == "system"]
    if len(system) < 2:
        return both
    rest = [one for one in both if one["role"] != "system"]
    text = "\n\n".join(filter(None, system))
    return [{"role": "system", "content": text}, *rest]


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
            content += _anthropic_parts(block, role)
        if content:
            messages.append({"role": role, "content": content})
    return (
        {"system": system, "messages": messages} if system else {"messages": messages}
    )


def _anthropic_parts(block: Any, role: str) -> list[JSONObject]:
    kind = block.get("type")
    if kind == "tool_result":
        # Results stand at the beginning of their message already.
        return []
    if kind == "tool_call":
        return [to_anthropic_tool_call(*_call(block))]
    if kind == "reasoning":
        signature = _text(block.get("signature"))
        thinking = {"type": "thinking", "thinking": _text(block.get("text"))}
        return [{**thinking, "signature": signature}] if signature else []
    if role == "assistant":
        # An assistant's message cannot hold an image.
        block = {"type": "text", "text": render_text([block])}
    return to_anthropic_content([block])


def _turns(prompt: Sequence[Any]) -> Iterable[tuple[str, Sequence[Block]]]:
    if prompt and all(map(_is_message, prompt)):
        return [(message["role"], message["blocks"]) for message in prompt]
    return [("user", prompt)]


def _is_message(value: Mapping[str, Any]) -> bool:
    """Tell a message from a block, to which a server may have given a role."""
    blocks: Any = value.get("blocks")
    is_list = isinstance(blocks, list | tuple)
    return (
        isinstance(value.get("role"), str) and is_list and all(map(_is_block, blocks))
    )


def _is_block(value: object) -> bool:
    return isinstance(value, Mapping)


def _results(blocks: Iterable[Any]) -> list[ToolResult]:
    return [
        ToolResult(
            _text(block.get("tool_call_id")),
            _blocks(block.get("blocks")),
            bool(block.get("is_error")),
        )
        for block in blocks
        if block.get("type") == "tool_result"
    ]


def _reasoning(blocks: Iterable[Any]) -> str:
    thoughts = [b.get("text") for b in blocks if b.get("type") == "reasoning"]
    return "\n\n".join(filter(None, map(_text, thoughts)))


def _call(block: Any) -> tuple[ToolCall, str]:
    given = block.get("input") or {}
    arguments = given if isinstance(given, dict) else {"input": given}
    call: ToolCall = {"tool": _text(block.get("name")), "input": arguments}
    return call, _text(block.get("id"))


def _text(value: Any) -> str:
    """Return what should be text as text, whatever a server wrote in its place."""
    if value is None:
        return ""
    return replace_surrogates(value if isinstance(value, str) else json.dumps(value))


def _blocks(value: Any) -> list[Block]:
    """Return what should be a list of blocks as one; anything else in it is text."""
    if value is None:
        return []
    parts = value if isinstance(value, list | tuple) else [value]
    return [
        part if _is_block(part) else {"type": "text", "text": _text(part)}
        for part in parts
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class ToolResult:
    """What one call gave back, for a model to read.

    Args:
        id: The id of the call that this answers.
        blocks: The output's blocks.
        is_error: Whether the call was refused or failed.

    Example:
        >>> result = ToolResult("call_1", [{"type": "text", "text": "Right."}])
        >>> tool_result_messages([result])[0]["content"]
        'Right.'
    """

    id: str
    blocks: Sequence[Block]
    is_error: bool = False


_IMAGES_FOLLOW: Final = "Images of the tool results above, in order:"


def tool_result_messages(
    results: Sequence[ToolResult],
    format: Literal["openai", "anthropic"] = "openai",
    images: Literal["user", "tool"] | None = None,
) -> list[JSONObject]:
    """Return the messages that answer the calls of one assistant turn.

    Args:
        results: The results, in the order of the calls.
        format: The provider that the messages are for.
        images: Where images go. ``"tool"`` puts them into the results. ``"user"``
            puts them all into user content after the results, and
            ``[image: mime, WxH]`` in their place. The default is what the provider
            takes: ``"user"`` for OpenAI, whose tool messages hold only text, and
            ``"tool"`` for Anthropic.

    Returns:
        For OpenAI one ``tool`` message per result, and at most one ``user`` message;
        for Anthropic one ``user`` message, with the results first, as Anthropic
        requires.

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
    parts = (convert(block) for result in results for block in result.blocks)
    return [part for part in parts if part is not None]


def to_openai_tool_call(call: ToolCall, call_id: str) -> JSONObject:
    """Return a call as part of an assistant's message for OpenAI.

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
    """Return a call as part of an assistant's message for Anthropic.

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
        "input": make_encodable(call["input"]),
    }


def to_openai_content(blocks: Iterable[Block]) -> list[JSONObject]:
    """Return blocks as content parts of an OpenAI user message.

    Args:
        blocks: Blocks of a prompt or an output. Kinds that OpenAI does not take are
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
        blocks: Blocks of a prompt or an output. Kinds that Anthropic does not take
            are described as text. Blank text, which it refuses, is left out.

    Returns:
        ``TextBlockParam`` and ``ImageBlockParam`` dicts.

    Example:
        >>> png = {"type": "image", "data": "iVBORw0K", "mimeType": "image/png"}
        >>> to_anthropic_content([{"type": "text", "text": " "}, png])[0]["source"]
        {'type': 'base64', 'media_type': 'image/png', 'data': 'iVBORw0K'}
    """
    parts = [_anthropic_image(block) or _text_part(block) for block in blocks]
    return [part for part in parts if part["type"] == "image" or part["text"].strip()]


def to_mcp_content(blocks: Iterable[Block]) -> list[JSONObject]:
    """Return blocks as content blocks of MCP.

    Args:
        blocks: Blocks of a prompt or an output. Kinds that are neither text nor image
            are described as text, and so is an image of no known kind.

    Returns:
        ``TextContent`` and ``ImageContent`` as JSON. An image has the media type of
        its first bytes, whatever label the server gave it.

    Example:
        >>> to_mcp_content([{"type": "text", "text": "Hi"}])
        [{'type': 'text', 'text': 'Hi'}]
    """
    return [_mcp_image(block) or _text_part(block) for block in blocks]


_MEDIA_TYPES: Final = {
    "image/gif": "image/gif",
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/webp": "image/webp",
}
"""Images that both providers take (their vision guides)."""


def _text_part(block: Block) -> JSONObject:
    return {"type": "text", "text": replace_surrogates(describe_block(block))}


def _mcp_image(block: Block) -> JSONObject | None:
    data, media_type = block.get("data"), read_media_type(block)
    is_image = block.get("type") == "image" and media_type.startswith("image/")
    if not is_image or not isinstance(data, str) or not f"{data}{media_type}".isascii():
        return None
    return {"type": "image", "data": data, "mimeType": media_type}


def _openai_image(block: Block) -> JSONObject | None:
    source = _image_source(block)
    if source is None:
        return None
    url = f"data:{source[0]};base64,{source[1]}"
    return {"type": "image_url", "image_url": {"url": url}}


def _anthropic_image(block: Block) -> JSONObject | None:
    source = _image_source(block)
    if source is None:
        return None
    media_type, data = source
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


def _image_source(block: Block) -> tuple[str, str] | None:
    """Return media type and base64, if the block is an image that providers take."""
    data = block.get("data")
    media_type = _MEDIA_TYPES.get(read_media_type(block).lower())
    if block.get("type") != "image" or not isinstance(data, str) or not media_type:
        return None
    if not data.isascii():
        return None
    return media_type, data
