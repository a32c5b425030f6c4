"""From a JSON Schema to type hints.

`transformers.utils.get_json_schema` reads a tool's parameters back from type hints: it
knows the JSON types, ``Literal``, ``Union``, ``list[...]`` and ``dict[str, ...]``, but
no bounds, no patterns and no object with members of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Union

from ors_gym.integrations.trl.references import REMARKS, resolve
from ors_gym.types import JSONObject

__all__ = ["Hint", "hint_of", "unite"]

_BASIC: Final = {
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": float,
    "string": str,
}
_MAX_DEPTH: Final = 8
"""Hints within hints: what is deeper, or recursive, may be anything."""
_SCALARS: Final = (bool, float, int, str, type(None))


class Hint(NamedTuple):
    """A type hint for the values of a schema.

    Args:
        annotation: What `transformers.utils.get_json_schema` can read; it allows every
            value that the schema allows.
        exact: Whether it allows no other value.
    """

    annotation: Any
    exact: bool


_ANYTHING: Final = Hint(Any, exact=False)


def hint_of(schema: Any, root: JSONObject, depth: int = 0) -> Hint:
    """Return a type hint for the values of a schema.

    Args:
        schema: A JSON Schema.
        root: The schema that its references lead into.
        depth: How many schemas it is a part of.

    Returns:
        The hint.

    Example:
        >>> hint_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {}).exact
        True
        >>> hint_of({"type": "array", "items": {"enum": ["a"]}}, {}).annotation
        list[typing.Literal['a']]
        >>> hint_of({"type": "integer", "minimum": 1}, {})
        Hint(annotation=<class 'int'>, exact=False)
    """
    if schema is True or schema == {}:
        return Hint(Any, exact=True)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return _ANYTHING
    keys = schema.keys() - REMARKS
    hint = _hint_of_keys(schema, keys, root, depth)
    return hint if hint is not None else Hint(Any, exact=not keys)


def _hint_of_keys(
    schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if "$ref" in keys:
        target = hint_of(resolve(schema["$ref"], root), root, depth + 1)
        return Hint(target.annotation, target.exact and keys == {"$ref"})
    if "const" in keys:
        return _hint_of_values([schema["const"]], keys <= {"const", "type"})
    if isinstance(schema.get("enum"), list):
        return _hint_of_values(schema["enum"], keys <= {"enum", "type"})
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list) and parts and (key != "allOf" or len(parts) == 1):
            hints = [hint_of(part, root, depth + 1) for part in parts]
            # Values that fit two branches of a oneOf are refused.
            return unite(hints, exact=keys == {key} and key != "oneOf")
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return unite(
            [hint_of({**schema, "type": one}, root, depth + 1) for one in kind]
        )
    return _hint_of_type(kind, schema, keys, root, depth)


def _hint_of_type(
    kind: Any, schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if isinstance(kind, str) and kind in _BASIC:
        return Hint(_BASIC[kind], keys == {"type"})
    if kind == "array":
        items = hint_of(schema.get("items", True), root, depth + 1)
        annotation: Any = list
        if items.annotation is not Any:
            annotation = list[items.annotation]  # type: ignore[name-defined]
        return Hint(annotation, items.exact and keys <= {"type", "items"})
    if kind == "object" or "properties" in keys:
        values = hint_of(schema.get("additionalProperties", True), root, depth + 1)
        exact = values.exact and keys <= {"type", "additionalProperties"}
        if values.annotation is Any or "properties" in keys:
            return Hint(dict, exact)
        return Hint(dict[str, values.annotation], exact)  # type: ignore[name-defined]
    return None


def _hint_of_values(values: list[Any], exact: bool) -> Hint:
    """Return a hint for the values of an enumeration; only scalars can be listed."""
    if not values or any(type(value) not in _SCALARS for value in values):
        return _ANYTHING
    return Hint(Literal[tuple(values)], exact)


def unite(hints: Iterable[Hint], *, exact: bool = True) -> Hint:
    """Return a hint for the values of any of several.

    Args:
        hints: At least one.
        exact: Whether the union allows only what was meant.

    Returns:
        The hint.

    Example:
        >>> unite([Hint(int, True), Hint(str, True)])
        Hint(annotation=typing.Union[int, str], exact=True)
    """
    hints = list(hints)
    annotation = operator.getitem(Union, tuple(hint.annotation for hint in hints))
    return Hint(annotation, exact and all(hint.exact for hint in hints))
