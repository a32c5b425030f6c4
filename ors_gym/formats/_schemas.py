"""JSON Schemas read for people and for other formats: `$ref` followed, words found."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from ors_gym._shown_text import shorten
from ors_gym.formats._drafts import (
    LISTED_PARTS,
    NAMED_PARTS,
    REFERENCES,
    SINGLE_PARTS,
    Document,
    Scope,
    follow_reference,
)
from ors_gym.types import JSONObject, ToolSpec

_MAX_REFERENCES: Final = 16
"""References and single choices that are followed, since they may form a circle."""
_MAX_DEFINITIONS: Final = 1000
"""Schemas that a bundle has: one for each way to come to a dynamic reference."""
_LAST_ID: Final = 4
"""The last draft in which ``id`` names a schema."""
_LEFT_OUT: Final = frozenset({"$anchor", "$defs", "$dynamicAnchor", "$id"}) | {
    "$recursiveAnchor",
    "definitions",
}
_LONGEST: Final = 200
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
_ANNOTATIONS: Final = (
    _LEFT_OUT
    | {"$comment", "$schema", "default", "deprecated", "description", "examples"}
    | {"readOnly", "title", "writeOnly"}
)
"""Keywords that allow the same values whatever they say."""
_REPEATED: Final = frozenset(
    {"const", "default", "description", "enum", "title", "type"}
)
"""Keywords of a branch that stays that are shown beside it as well: they mean the same
there."""
_MOST_INHERITED: Final = 100
"""Schemas that are looked through for the arguments of a tool."""
_EXCLUSIVE: Final = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}


def bundle_schema(schema: Any) -> Any:
    """Return a schema of which every reference is a pointer that providers follow.

    They know ``#`` and ``#/$defs/...``, but no ``$id``, ``$anchor`` or ``$dynamicRef``,
    nor places such as ``#/anyOf/0`` once a union is merged. `Scope.refer` finds what a
    reference means, as for the samplers. One that leads nowhere stays. A schema without
    other references is returned as it is.

    Example:
        >>> way = {"$id": "way", "$anchor": "a", "enum": ["up", "down"]}
        >>> properties = {"to": {"$ref": "way#a"}}
        >>> bundle_schema({"$defs": {"Way": way}, "properties": properties})
        {'properties': {'to': {'$ref': '#/$defs/a'}}, '$defs': {'a': {'enum': ['up', \
'down']}}}
    """
    document = Document(schema)
    return _Bundler(document).run() if not document.bundled else schema


class _Bundler:
    """Copies the schemas that are in use, and each that is referred to once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._definitions: JSONObject = {}
        self._pointers: dict[Any, str] = {}
        self._waiting: list[tuple[JSONObject, Scope, JSONObject]] = []

    def run(self) -> JSONObject:
        root, scope = self._document.root, self._document.scope()
        self._pointers[id(root), scope.key] = "#"
        result: JSONObject = self._copy(root, scope)
        # One after the other: a schema may be nested more deeply than calls may be.
        while self._waiting:
            self._fill(*self._waiting.pop())
        if self._definitions:
            result["$defs"] = self._definitions
        return result

    def _copy(self, schema: Any, scope: Scope) -> Any:
        if not isinstance(schema, dict):
            return schema
        copy: JSONObject = {}
        self._waiting.append((schema, scope, copy))
        return copy

    def _enter(self, schema: Any, scope: Scope) -> Any:
        if isinstance(schema, list):
            return [self._copy(one, scope.enter(one)) for one in schema]
        return self._copy(schema, scope.enter(schema))

    def _fill(self, schema: JSONObject, scope: Scope, copy: JSONObject) -> None:
        known = scope.view(schema)
        references = [key for key in schema if key in REFERENCES and key in known]
        for key, value in schema.items():
            if key in references:
                continue
            if key in NAMED_PARTS and isinstance(value, dict):
                copy[key] = {name: self._enter(v, scope) for name, v in value.items()}
            elif key in LISTED_PARTS or key in SINGLE_PARTS:
                copy[key] = self._enter(value, scope)
            elif key not in _LEFT_OUT and (key != "id" or scope.dialect > _LAST_ID):
                copy[key] = value
        # Last, since a second one is added to ``allOf``.
        for key in references:
            self._refer(key, schema[key], scope, copy)

    def _refer(self, key: str, reference: Any, scope: Scope, copy: JSONObject) -> None:
        try:
            target, inside = scope.refer(key, reference)
        except LookupError:
            copy[key] = reference
            return
        if not isinstance(target, dict | bool):
            copy[key] = reference
            return
        place = id(target), inside.key
        if place not in self._pointers:
            if len(self._definitions) >= _MAX_DEFINITIONS:
                return
            name = self._free_name(reference)
            self._pointers[place] = f"#/$defs/{name}"
            self._definitions[name] = self._copy(target, inside)
        pointer = self._pointers[place]
        if "$ref" in copy:
            parts = copy.get("allOf")
            parts = parts if isinstance(parts, list) else []
            copy["allOf"] = [*parts, {"$ref": pointer}]
        else:
            copy["$ref"] = pointer

    def _free_name(self, reference: object) -> str:
        words = re.findall(r"[A-Za-z0-9_.-]+", unquote(str(reference)))
        name = words[-1] if words else "schema"
        names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2)))
        return next(one for one in names if one not in self._definitions)


def list_of(part: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the list that a keyword has; a schema may have anything there."""
    value = part.get(keyword)
    return value if isinstance(value, list) else []


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

    What stands beside them is kept. Where it says something else of the values by the
    same keyword, such as ``properties``, both count: the branch stays, a reference in
    ``allOf``. With ``without_null`` a union of null and one other branch counts as that
    branch.

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
        if inner is None or inner is False:
            break
        beside = {name: value for name, value in resolved.items() if name != key}
        if isinstance(inner, Mapping) and _collide(beside, inner):
            if key == "$ref":
                branch = {"$ref": resolved["$ref"]}
                resolved = beside | {"allOf": [*list_of(beside, "allOf"), branch]}
            return {name: inner[name] for name in inner if name in _REPEATED} | resolved
        resolved, schema = beside, inner
    return resolved


def _collide(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two schemas limit the values differently by one keyword."""
    shared = (one.keys() & other.keys()) - _ANNOTATIONS
    return any(one[name] != other[name] for name in shared)


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
    return shorten(", ".join([values, *_describe_bounds(schema)]), _LONGEST)


def _describe_values(schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if isinstance(schema.get("enum"), list):
        return shorten("one of " + ", ".join(map(_to_json, schema["enum"])), _LONGEST)
    if "const" in schema:
        return shorten(_to_json(schema["const"]), _LONGEST)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            branches = (describe_schema(one, root, depth - 1) for one in schema[key])
            return shorten(" or ".join(branches), _LONGEST) or "nothing"
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


def describe_tool(tool: ToolSpec) -> str:
    """Write a tool as a call, with ``?`` after the name of an optional argument.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> describe_tool({"name": "guess", "description": "", "input_schema": schema})
        'guess(n: integer)'
    """
    root = bundle_schema(tool["input_schema"])
    arguments, needed = list_arguments(root)
    fields = [
        f"{name}{'' if name in needed else '?'}: {describe_schema(field, root)}"
        for name, field in arguments.items()
    ]
    return f"{tool['name']}({'; '.join(fields)})"


def list_arguments(root: Any) -> tuple[JSONObject, list[Any]]:
    """Return an object's properties and the required ones, those of ``allOf`` too.

    Example:
        >>> base = {"properties": {"n": {}}, "required": ["n"]}
        >>> list_arguments({"allOf": [base], "properties": {"to": {}}})
        ({'to': {}, 'n': {}}, ['n'])
    """
    arguments: JSONObject = {}
    needed: list[Any] = []
    parts = [root]
    # The list grows meanwhile, without end where references form a circle.
    for part in itertools.islice(parts, _MOST_INHERITED):
        schema = resolve_schema(part, root)
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            arguments |= {k: v for k, v in properties.items() if k not in arguments}
        needed += list_of(schema, "required")
        parts += list_of(schema, "allOf")
    return arguments, needed
