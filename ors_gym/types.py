"""The values of the wire: plain JSON, described for a type checker.

Nothing is wrapped: what the server sends is what the caller gets, checked where
docs/wire.md (section "Reading") asks for it, so ``result["reward"]`` and
``tools[0]["name"]`` work as in the published sample client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

__all__ = [
    "Block",
    "JSONObject",
    "JSONValue",
    "Split",
    "TaskSpec",
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


Block: TypeAlias = JSONObject
"""One block of a prompt or a result, checked when it was read.

``{"type": "text", "text": ...}`` or ``{"type": "image", "data": base64, "mimeType":
...}``, both perhaps with a ``detail``; blocks of another type are kept as they came.
"""


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
