"""The values of the wire: plain JSON, described for a type checker.

Nothing is wrapped: what the server sends is what the caller gets, checked where
WIRE.md (section "Reading") asks for it, so ``result["reward"]`` and
``tools[0]["name"]`` work as in the published sample client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Block",
    "ImageBlock",
    "JSONObject",
    "JSONValue",
    "Split",
    "TaskSpec",
    "TextBlock",
    "ToolCall",
    "ToolOutput",
    "ToolSpec",
]

JSONValue: TypeAlias = (
    str | int | float | bool | Sequence[Any] | Mapping[str, Any] | None
)
JSONObject: TypeAlias = dict[str, Any]
TaskSpec: TypeAlias = JSONObject
"""A task as the server describes it. It usually holds the answer."""


class TextBlock(TypedDict):
    """A piece of text."""

    type: Literal["text"]
    text: str
    detail: NotRequired[JSONObject | None]


class ImageBlock(TypedDict):
    """An image: base64 ``data`` of the media type ``mimeType``."""

    type: Literal["image"]
    data: str
    mimeType: str
    detail: NotRequired[JSONObject | None]


Block: TypeAlias = TextBlock | ImageBlock | JSONObject
"""One block of a prompt or a result; unknown kinds are kept as they came."""


class ToolSpec(TypedDict):
    """A tool as the server lists it; no schema means no arguments."""

    name: str
    description: str
    input_schema: JSONObject | None


class ToolOutput(TypedDict):
    """What a tool gave back; ``reward`` is a finite number or None."""

    blocks: list[Block]
    metadata: JSONObject | None
    reward: float | None
    finished: bool


class ToolCall(TypedDict):
    """The canonical action: which tool, with which input."""

    tool: str
    input: JSONObject


class Split(TypedDict):
    """A named set of tasks; ``type`` is train, validation or test."""

    name: str
    type: str
