"""Gymnasium spaces for text, images and tool calls.

`FreeText` holds any text, `ImageTuple` any images. `ToolCallSpace` holds the calls that
a server's tools take, `ToolCallText` samples these calls as text.
`narrow_tools` merges a user's schemas into those of a server's tools.
`ors_gym.spaces.json_schema` samples, validates and enumerates any JSON Schema. Nothing
here imports jsonschema before it is needed.
"""

from __future__ import annotations

from ors_gym.spaces._images import ImageTuple
from ors_gym.spaces._narrow_tools import ToolSchemas, narrow_tools
from ors_gym.spaces._text import FreeText
from ors_gym.spaces._tool_call import ToolCallSpace, ToolCallText

__all__ = [
    "FreeText",
    "ImageTuple",
    "ToolCallSpace",
    "ToolCallText",
    "ToolSchemas",
    "narrow_tools",
]
