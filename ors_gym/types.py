"""The values of the protocol as plain JSON, described for type checkers.

Nothing is wrapped: callers get what the server sent, checked where docs/wire.md
(section "Reading") asks for it. So ``result["reward"]`` and ``tools[0]["name"]`` work
as in the published sample client.
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
...}``. Both may have a ``detail``. Blocks of another type are kept unchanged.
"""


class ToolSpec(TypedDict):
    """A tool as the server lists it; no schema means no arguments."""

    name: str
    description: str
    input_schema: JSONObject | None


class ToolOutput(TypedDict):
    """The result of a tool call; ``reward`` is a finite number or None."""

    blocks: list[Block]
    metadata: JSONObject | None
    reward: float | None
    finished: bool


class ToolCall(TypedDict):
    """The canonical action: the name of a tool, and its input."""

    tool: str
    input: JSONObject


class Split(TypedDict):
    """A named set of tasks; ``type`` is train, validation or test."""

    name: str
    type: str
