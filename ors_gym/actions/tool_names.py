"""Names of tools that model providers accept, and the way back.

A server may name a tool in any way; providers allow ``[a-zA-Z0-9_-]{1,64}`` (OpenAI's
API reference, ``FunctionDefinition.name``; Anthropic's tool use guide, ``name``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from ors_gym.types import ToolSpec

__all__ = ["original_tool_name", "provider_tool_name"]

_MAX_LENGTH: Final = 64
_DIGEST_LENGTH: Final = 10
_ALLOWED: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{_MAX_LENGTH}}}")
_REFUSED: Final = re.compile(r"[^a-zA-Z0-9_-]")
_STAND_IN: Final = re.compile(rf".*_[0-9a-f]{{{_DIGEST_LENGTH}}}")


def provider_tool_name(name: str) -> str:
    """Return the name itself if providers accept it, else a readable stand-in.

    Args:
        name: A tool's name as the server lists it.

    Returns:
        At most 64 characters of ``a-zA-Z0-9_-``; the same stand-in every time, and
        another one for every other name.

    Example:
        >>> provider_tool_name("look_up"), provider_tool_name("files.read")
        ('look_up', 'files_read_601e4eb608')
    """
    if _ALLOWED.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    readable = _REFUSED.sub("_", name)[: _MAX_LENGTH - _DIGEST_LENGTH - 1]
    return f"{readable}_{digest[:_DIGEST_LENGTH]}"


def original_tool_name(name: str, tools: Sequence[ToolSpec]) -> str:
    """Return the server's name of the tool that a model called.

    Args:
        name: A name as the model gave it.
        tools: The tools as the server lists them.

    Returns:
        The name of the tool that has this name or this stand-in; the name as it came
        if there is none.

    Example:
        >>> tools = [{"name": "files.read", "description": "", "input_schema": None}]
        >>> original_tool_name("files_read_601e4eb608", tools)
        'files.read'
    """
    if not _STAND_IN.fullmatch(name) or any(tool["name"] == name for tool in tools):
        return name
    for tool in tools:
        if provider_tool_name(tool["name"]) == name:
            return tool["name"]
    return name
