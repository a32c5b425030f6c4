"""What a parameter's schema says of itself once its references are followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ors_gym.integrations.trl.docstrings import one_line, to_json
from ors_gym.types import JSONObject

__all__ = ["REMARKS", "describe", "resolve", "schema_text"]

REMARKS: Final = frozenset(
    {"$comment", "$schema", "default", "deprecated", "description", "examples"}
    | {"$defs", "definitions", "discriminator", "readOnly", "title", "writeOnly"}
)
"""Keys that allow and forbid nothing."""
_MAX_DEPTH: Final = 24
"""Schemas within schemas that are followed, since they may be recursive."""
_MAX_TEXT: Final = 2000
"""Characters of one parameter's schema; a longer one is shown with its references."""
_NAMED_PARTS: Final = frozenset({"dependentSchemas", "patternProperties", "properties"})
_LISTED_PARTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE_PARTS: Final = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not"}
    | {"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
)
_LEFT_OUT: Final = frozenset({"$defs", "definitions", "discriminator", "title"})


class _NotExpandableError(Exception):
    """Raised for a schema that cannot be written without references."""


def describe(schema: Any, root: JSONObject, depth: int = 0) -> str:
    """Return what a schema says of itself, on one line.

    Args:
        schema: A JSON Schema.
        root: The schema that its references lead into.
        depth: How many references led here.

    Returns:
        Its description, or that of what it refers to, else ``""``.

    Example:
        >>> describe({"description": "How many."}, {})
        'How many.'
    """
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return ""
    if isinstance(schema.get("description"), str) and schema["description"].split():
        return one_line(schema["description"])
    if "$ref" in schema:
        return describe(resolve(schema["$ref"], root), root, depth + 1)
    return ""


def schema_text(schema: Any, root: JSONObject) -> str | None:
    """Return a parameter's schema as JSON in which no reference is left.

    Args:
        schema: The parameter's JSON Schema.
        root: The schema that its references lead into.

    Returns:
        JSON; None if the schema is recursive, becomes long without references, or
        has others than to ``$defs``.

    Example:
        >>> root = {"$defs": {"Age": {"type": "integer", "minimum": 0, "title": "Age"}}}
        >>> schema_text({"$ref": "#/$defs/Age"}, root)
        '{"type": "integer", "minimum": 0}'
    """
    try:
        text = to_json(_expand(schema, root, 0))
    except _NotExpandableError:
        return None
    return text if len(text) <= _MAX_TEXT else None


def _expand(schema: Any, root: JSONObject, depth: int) -> Any:
    """Put what is referred to in the place of references, and leave titles out."""
    if not isinstance(schema, Mapping):
        return schema
    if depth > _MAX_DEPTH:
        raise _NotExpandableError
    if "$ref" in schema:
        return _follow(schema, root, depth)
    return {
        key: _expand_part(key, value, root, depth + 1)
        for key, value in schema.items()
        if key not in _LEFT_OUT
    }


def _follow(schema: Mapping[str, Any], root: JSONObject, depth: int) -> JSONObject:
    found = resolve(schema["$ref"], root)
    if found is None:
        raise _NotExpandableError
    target = _expand(found, root, depth + 1)
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    rest: JSONObject = _expand(beside, root, depth + 1)
    if not rest.keys() - REMARKS and isinstance(target, dict):
        return {**target, **rest}
    return {**rest, "allOf": [target, *rest.get("allOf", ())]}


def _expand_part(key: str, value: Any, root: JSONObject, depth: int) -> Any:
    if key in _NAMED_PARTS and isinstance(value, Mapping):
        return {name: _expand(part, root, depth) for name, part in value.items()}
    if key in _LISTED_PARTS and isinstance(value, list):
        return [_expand(part, root, depth) for part in value]
    return _expand(value, root, depth) if key in _SINGLE_PARTS else value


def resolve(reference: Any, root: JSONObject) -> Any:
    """Return the definition that a reference names.

    Args:
        reference: The value of a ``$ref``.
        root: The schema that holds it.

    Returns:
        The definition; None for a reference of any other kind, or that leads nowhere.

    Example:
        >>> resolve("#/$defs/Age", {"$defs": {"Age": {"type": "integer"}}})
        {'type': 'integer'}
    """
    place, _, name = str(reference).rpartition("/")
    definitions = root.get(place.removeprefix("#/"))
    if place not in ("#/$defs", "#/definitions") or not isinstance(definitions, dict):
        return None
    return definitions.get(name.replace("~1", "/").replace("~0", "~"))
