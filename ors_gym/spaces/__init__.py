"""Gymnasium spaces for text and for tool calls.

`FreeText` is any text; `ToolCallSpace` is the calls that a server's tools take;
`ToolCallText` is those calls as text. `ors_gym.spaces.json_schema` samples, validates
and enumerates any JSON Schema. Nothing here imports jsonschema before it is needed.
"""

from __future__ import annotations

from ors_gym.spaces._text import FreeText
from ors_gym.spaces._tool_call import ToolCallSpace, ToolCallText

__all__ = ["FreeText", "ToolCallSpace", "ToolCallText"]
