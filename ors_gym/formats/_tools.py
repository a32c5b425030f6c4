"""Tools as model providers accept them: names and input schemas."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ors_gym.formats._schemas import find_reference
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["original_tool_name", "provider_schema", "provider_tool_name"]

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


_REFUSED_KEYWORDS: Final = frozenset(
    {
        "$ref",
        "allOf",
        "anyOf",
        "const",
        "discriminator",
        "else",
        "enum",
        "if",
        "not",
        "oneOf",
        "then",
    }
)
"""Keys that providers refuse in the outermost schema."""
_MAX_DEPTH: Final = 32


def provider_schema(schema: JSONObject | None) -> JSONObject:
    """Return a schema whose outermost level is a plain object.

    OpenAI refuses an outermost ``anyOf``, ``oneOf``, ``allOf``, ``enum`` or ``not``,
    and an object without ``properties`` (its function calling guide); Anthropic
    requires ``"type": "object"`` and refuses the same unions (its tool use guide).
    Pydantic writes such schemas for unions and for recursive models. Below the
    outermost level nothing changes.

    Args:
        schema: A tool's ``input_schema``; None means that it takes no arguments.

    Returns:
        A copy. The alternatives of a union are merged: all their properties, each as
        the alternatives that name it describe it, of which those are required that
        every alternative requires. What else the union said the server still checks.

    Example:
        >>> provider_schema(None)
        {'type': 'object', 'properties': {}}
        >>> provider_schema({"anyOf": [
        ...     {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
        ...     {"properties": {"a": {}}, "required": ["a"]},
        ... ]})
        {'type': 'object', 'properties': {'a': {}, 'b': {}}, 'required': ['a']}
    """
    # Quicker than deepcopy, and at home with any depth that could be read.
    result = json.loads(json.dumps(schema)) if schema else {}
    if not result.keys() & _REFUSED_KEYWORDS:
        properties = _as_object(result.get("properties"))
        return {**result, "type": "object", "properties": properties}
    properties, required = _Collector(result).collect(result)
    kept = {key: value for key, value in result.items() if key not in _REFUSED_KEYWORDS}
    # The alternatives' properties would be refused by the outermost schema's own word.
    kept.pop("additionalProperties", None)
    merged = {**kept, "type": "object", "properties": properties}
    if required:
        merged["required"] = [name for name in properties if name in required]
    return merged


class _Collector:
    """Finds the properties of an object that is described in several parts."""

    def __init__(self, root: JSONObject) -> None:
        self.root = root
        self.known: dict[str, tuple[dict[str, Any], set[str]]] = {}
        """What references lead to; nothing while one is being followed."""

    def collect(self, part: Any, depth: int = 0) -> tuple[dict[str, Any], set[str]]:
        """Return a part's properties and which of them are required."""
        if not isinstance(part, Mapping) or depth > _MAX_DEPTH:
            return {}, set()
        groups = [(_as_object(part.get("properties")), _names(part.get("required")))]
        if isinstance(part.get("$ref"), str):
            groups.append(self.follow(part["$ref"], depth))
        groups += [self.collect(inner, depth + 1) for inner in _items(part, "allOf")]
        for key in ("anyOf", "oneOf"):
            alternatives = [
                self.collect(inner, depth + 1) for inner in _items(part, key)
            ]
            if alternatives:
                in_all = set.intersection(*(required for _, required in alternatives))
                groups.append((_merge(found for found, _ in alternatives), in_all))
        required = set().union(*(required for _, required in groups))
        return _merge(found for found, _ in groups), required

    def follow(self, reference: str, depth: int) -> tuple[dict[str, Any], set[str]]:
        """Return what a reference leads to, looked at once."""
        if reference not in self.known:
            self.known[reference] = {}, set()
            target = find_reference(reference, self.root)
            self.known[reference] = self.collect(target, depth + 1)
        return self.known[reference]


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> set[str]:
    names = value if isinstance(value, list) else []
    return {name for name in names if isinstance(name, str)}


def _items(part: Mapping[str, Any], key: str) -> list[Any]:
    value = part.get(key)
    return value if isinstance(value, list) else []


def _merge(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge properties; one that is described in several ways may be any of them."""
    described: dict[str, list[Any]] = {}
    for properties in groups:
        for name, schema in properties.items():
            schemas = described.setdefault(name, [])
            if schema not in schemas:
                schemas.append(schema)
    return {
        name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        for name, schemas in described.items()
    }
