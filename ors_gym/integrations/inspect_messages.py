"""Messages and tools as Inspect AI has them, for `ors_gym.integrations.inspect`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ors_gym.errors import MissingExtraError
from ors_gym.formats import to_openai_tools
from ors_gym.types import JSONObject, ToolSpec

try:
    from inspect_ai.model import (
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        Content,
        ContentImage,
        ContentText,
    )
    from inspect_ai.tool import ToolCall, ToolInfo, ToolParams
    from inspect_ai.util import JSONSchema
    from pydantic import ValidationError
except ImportError as error:
    raise MissingExtraError(
        'Inspect AI is not installed; install it with: pip install "ors-gym[inspect]"'
    ) from error

__all__ = ["from_inspect", "to_inspect", "tool_infos"]

_MAX_DEPTH: Final = 12
"""References within references that are followed, since they may be recursive."""
_PARTS: Final = ("anyOf", "oneOf", "allOf")


def tool_infos(tools: Iterable[ToolSpec]) -> list[ToolInfo]:
    """Return tools for Inspect's models.

    Args:
        tools: The tools as the server lists them.

    Returns:
        Their names, descriptions and parameters. What Inspect has no word for is left
        out: the server checks what comes.
    """
    infos = []
    for tool in to_openai_tools(tools):
        function = tool["function"]
        root = function["parameters"]
        others = root.get("additionalProperties", True)
        parameters = ToolParams(
            properties={
                name: _schema(part, root) for name, part in root["properties"].items()
            },
            required=[
                name for name in root.get("required", ()) if isinstance(name, str)
            ],
            additionalProperties=others if isinstance(others, bool) else True,
        )
        described = function["description"] or function["name"]
        infos.append(
            ToolInfo(
                name=function["name"], description=described, parameters=parameters
            )
        )
    return infos


def _schema(part: Any, root: JSONObject) -> JSONSchema:
    try:
        return JSONSchema.model_validate(_plain(part, root, 0))
    except ValidationError:
        # Of a kind that Inspect does not know; the model is shown it as it is.
        return JSONSchema(description=json.dumps(part))


def _plain(part: Any, root: JSONObject, depth: int) -> Any:
    """Write a schema without references, ``oneOf``, ``allOf`` and ``const``."""
    if not isinstance(part, Mapping) or depth > _MAX_DEPTH:
        return {}
    plain = {name: value for name, value in part.items() if name not in _PARTS}
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    for name in ("items", "additionalProperties"):
        if isinstance(plain.get(name), Mapping):
            plain[name] = _plain(plain[name], root, depth + 1)
    if isinstance(plain.get("properties"), Mapping):
        inner = plain["properties"].items()
        plain["properties"] = {k: _plain(v, root, depth + 1) for k, v in inner}
    choices = [*_listed(part, "anyOf"), *_listed(part, "oneOf")]
    if choices:
        plain["anyOf"] = [_plain(choice, root, depth + 1) for choice in choices]
    for base in _listed(part, "allOf"):
        plain = {**_plain(base, root, depth + 1), **plain}
    reference = plain.pop("$ref", None)
    if isinstance(reference, str):
        plain = {**_plain(_follow(reference, root), root, depth + 1), **plain}
    return plain


def _listed(part: Mapping[str, Any], name: str) -> list[Any]:
    value = part.get(name)
    return value if isinstance(value, list) else []


def _follow(reference: str, root: Any) -> Any:
    """Return what a reference within the schema leads to (RFC 6901), or None."""
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        root = root.get(name) if isinstance(root, Mapping) else None
    return root


def to_inspect(message: JSONObject) -> ChatMessage:
    """Return a chat message as Inspect has it.

    Args:
        message: A message of ``Episode.messages()``.

    Returns:
        The message.
    """
    role, content = message["role"], _content(message.get("content"))
    if role == "tool":
        return ChatMessageTool(content=content, tool_call_id=message["tool_call_id"])
    if role == "system":
        return ChatMessageSystem(content=content)
    if role == "user":
        return ChatMessageUser(content=content)
    calls = [_to_call(call) for call in message.get("tool_calls") or ()]
    return ChatMessageAssistant(content=content, tool_calls=calls or None)


def _content(content: Any) -> str | list[Content]:
    if content is None or isinstance(content, str):
        return content or ""
    return [
        ContentImage(image=part["image_url"]["url"])
        if part["type"] == "image_url"
        else ContentText(text=part["text"])
        for part in content
    ]


def _to_call(call: JSONObject) -> ToolCall:
    function = call["function"]
    given = json.loads(function["arguments"])
    return ToolCall(id=call["id"], function=function["name"], arguments=given)


def from_inspect(message: ChatMessageAssistant) -> JSONObject:
    """Return a model's message as one of OpenAI's chat completions.

    Args:
        message: What the model said.

    Returns:
        The message. Arguments that Inspect could not read are passed on as what it
        says of them, which is no JSON, so that they are an invalid action here too.
    """
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.function,
                "arguments": call.parse_error or json.dumps(call.arguments),
            },
        }
        for call in message.tool_calls or ()
    ]
    said: JSONObject = {"role": "assistant", "content": message.text}
    return {**said, "tool_calls": calls} if calls else said
