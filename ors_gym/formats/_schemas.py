"""JSON Schemas read for people and for other formats: `$ref` followed, words found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from ors_gym.types import JSONObject, ToolSpec

_MAX_REFERENCES: Final = 16
"""References and single choices that are followed, since they may form a circle."""
_MAX_CHARACTERS: Final = 200
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching {}",
    "format": "{}",
    "default": "default {}",
}
_EXCLUSIVE: Final = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def follow_reference(reference: str, root: Any) -> Any:
    """Return what a ``$ref`` names within a schema (RFC 6901, sections 4 and 6).

    Other documents are never fetched. A reference that leads nowhere raises a
    LookupError, whose message says why.
    """
    if not reference.startswith("#") or reference[1:2] not in ("", "/"):
        raise LookupError(
            f"the reference {reference!r:.200} leads out of the schema; only references"
            ' that begin with "#/" are followed, and nothing is fetched'
        )
    target = root
    for step in reference.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            raise LookupError(f"the reference {reference!r:.200} leads nowhere")
    return target


def find_reference(reference: object, root: Any) -> Any:
    """Return what `follow_reference` returns; None if the reference leads nowhere."""
    if not isinstance(reference, str):
        return None
    try:
        return follow_reference(reference, root)
    except LookupError:
        return None


def resolve_schema(schema: Any, root: Any, *, without_null: bool = False) -> JSONObject:
    """Return a schema with references and unions of one branch put in their place.

    What stands beside them is kept and wins. With ``without_null`` a union of null
    and one other branch counts as that branch.

    Example:
        >>> root = {"$defs": {"Way": {"enum": ["up", "down"]}}}
        >>> resolve_schema({"$ref": "#/$defs/Way", "default": "up"}, root)
        {'enum': ['up', 'down'], 'default': 'up'}
    """
    resolved: JSONObject = {}
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, Mapping):
            break
        resolved = {**schema, **resolved}
        key, inner = _only_branch(schema, root, without_null=without_null)
        if inner is None:
            break
        del resolved[key]
        schema = inner
    return resolved


def _only_branch(
    schema: Mapping[str, Any], root: Any, *, without_null: bool
) -> tuple[str, Any]:
    if isinstance(schema.get("$ref"), str):
        return "$ref", find_reference(schema["$ref"], root)
    for key in ("allOf", "anyOf", "oneOf"):
        branches = schema.get(key)
        if isinstance(branches, list):
            if without_null:
                branches = [one for one in branches if one != {"type": "null"}]
            if len(branches) == 1:
                return key, branches[0]
    return "", None


def describe_schema(schema: Any, root: Any = None, depth: int = 3) -> str:
    """Say in a few words which values a schema allows.

    Cards, forms and the command line all use these words. References lead into
    ``root``, the whole schema; ``depth`` says how far into its parts to look.

    Example:
        >>> describe_schema({"type": "integer", "minimum": 1, "maximum": 9})
        'integer, at least 1, at most 9'
        >>> way = {"anyOf": [{"$ref": "#/$defs/Way"}, {"type": "null"}]}
        >>> describe_schema(way, {"$defs": {"Way": {"enum": ["up", "down"]}}})
        'one of "up", "down" or null'
    """
    if schema is False:
        return "nothing"
    if not isinstance(schema, Mapping) or depth < 0:
        return "anything"
    schema = resolve_schema(schema, root)
    values = _describe_values(schema, root, depth)
    return _shorten(", ".join([values, *_describe_bounds(schema)]))


def _describe_values(schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if isinstance(schema.get("enum"), list):
        return _shorten("one of " + ", ".join(map(_to_json, schema["enum"])))
    if "const" in schema:
        return _shorten(_to_json(schema["const"]))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            branches = (describe_schema(one, root, depth - 1) for one in schema[key])
            return _shorten(" or ".join(branches)) or "nothing"
    kind = schema.get("type")
    if kind == "array" and "items" in schema:
        return f"array of {describe_schema(schema['items'], root, depth - 1)}"
    kinds = kind if isinstance(kind, list) else [kind]
    return " or ".join(str(one) for one in kinds if one) or "JSON"


def _describe_bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    bounds = dict(schema)
    for bound, exclusive in _EXCLUSIVE.items():
        # In Draft 4 a boolean excludes the bound itself; later it is another bound.
        if schema.get(exclusive) is True and bound in bounds:
            bounds[exclusive] = bounds.pop(bound)
    for key, words in _BOUNDS.items():
        if key == "default" and key in bounds:
            yield words.format(_to_json(bounds[key]))
        elif key in bounds and not isinstance(bounds[key], bool):
            yield words.format(bounds[key])


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shorten(text: str) -> str:
    if len(text) <= _MAX_CHARACTERS:
        return text
    return text[: _MAX_CHARACTERS - 1] + "…"


def describe_tool(tool: ToolSpec) -> str:
    """Write a tool as a call, with ``?`` after the name of an optional argument.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> describe_tool({"name": "guess", "description": "", "input_schema": schema})
        'guess(n: integer)'
    """
    schema: Mapping[str, Any] = tool["input_schema"] or {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping):
        return f"{tool['name']}()"
    needed = required if isinstance(required, list) else []
    fields = [
        f"{name}{'' if name in needed else '?'}: {describe_schema(field, schema)}"
        for name, field in properties.items()
    ]
    return f"{tool['name']}({'; '.join(fields)})"
