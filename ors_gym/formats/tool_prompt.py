"""Tools told in words, for models whose chat template is not given them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from ors_gym.formats.results import to_openai_tools
from ors_gym.types import ToolSpec

__all__ = ["describe_tools"]

_FORM: Final = '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'


def describe_tools(tools: Iterable[ToolSpec]) -> str:
    """Describe tools for a system message, and how they are called.

    Args:
        tools: The tools as the server lists them.

    Returns:
        Their JSON in ``<tools>`` tags, one a line, and the form of a call that
        `ors_gym.actions.parse_action` reads; both as Hermes and Qwen models know them.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> describe_tools([look]).splitlines()[2][:50]
        '{"type": "function", "function": {"name": "look", '
    """
    listed = "\n".join(json.dumps(tool) for tool in to_openai_tools(tools))
    return (
        f"These functions can be called:\n<tools>\n{listed}\n</tools>\n\n"
        f"To call one, write its name and its arguments as JSON in these tags:\n{_FORM}"
    )
