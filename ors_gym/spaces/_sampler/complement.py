"""What a value may be that breaks a schema: for ``not``, ``oneOf`` and ``else``.

A schema is broken if one of its keywords is. For most keywords the values that break
it have a schema too: what is not at least 3 is a number below 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

from ors_gym.spaces._sampler.conjunction import (
    ASSERTIONS,
    TYPES,
    NodeMaker,
    Part,
    flatten,
    type_names,
)
from ors_gym.spaces._sampler.nodes import Unusable

# The type that breaks a bound, the keyword that it breaks it by, and the distance.
_BOUNDS = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
_NOT_ASSERTED = {"contentMediaType", "contentSchema", "format"}


class Unknown(Exception):  # noqa: N818  # an answer
    """Raised for a keyword whose complement has no schema here."""


def complement(maker: NodeMaker, part: Part) -> tuple[list[list[Part]], bool]:
    """Return schemas of values that break one, and whether these are all such values.

    Each entry is schemas that apply at once; a value of any entry breaks the schema.
    """
    try:
        flat = flatten([part])
    except Unusable:
        # Nothing satisfies it: it is false, or no schema at all.
        return [], False
    entries: list[list[Part]] = []
    complete = True
    for one in flat:
        for keyword in sorted(ASSERTIONS & one.schema.keys()):
            try:
                entries.extend(_break(maker, one, keyword))
            except (Unknown, Unusable):
                complete = False
    return entries, complete


_Entries: TypeAlias = Iterator[list[Part]]


def _break(maker: NodeMaker, part: Part, keyword: str) -> _Entries:
    if keyword in _NOT_ASSERTED:
        return iter(())
    if keyword in _BOUNDS:
        return _break_bound(maker, part, keyword)
    if keyword not in _BREAKERS:
        raise Unknown
    return _BREAKERS[keyword](maker, part)


def _break_required(maker: NodeMaker, part: Part) -> _Entries:
    for name in part.names("required"):
        yield [maker.made({"type": "object", "properties": {name: False}})]


def _break_properties(maker: NodeMaker, part: Part) -> _Entries:
    for name, schema in part.mapping("properties").items():
        inside = {"properties": {name: {"not": schema}}, "required": [name]}
        yield [_written(maker, part, {"type": "object", **inside})]


def _break_closing(keyword: str, maker: NodeMaker, part: Part) -> _Entries:
    if part.schema[keyword] is False:
        named = part.mapping("properties")
        other = next(name for name in map(str, range(10**6)) if name not in named)
        yield [maker.made({"type": "object", "required": [other]})]
    raise Unknown


def _break_items(maker: NodeMaker, part: Part) -> _Entries:
    if "prefixItems" in part.schema:
        raise Unknown
    one = {"type": "array", "contains": {"not": part.schema["items"]}}
    yield [_written(maker, part, one)]


def _break_contains(maker: NodeMaker, part: Part) -> _Entries:
    if "minContains" in part.schema:
        raise Unknown
    none = {"type": "array", "items": {"not": part.schema["contains"]}}
    yield [_written(maker, part, none)]
    if "maxContains" in part.schema:
        raise Unknown


def _break_any_of(maker: NodeMaker, part: Part) -> _Entries:
    yield [maker.negated(branch) for branch in part.children("anyOf")]


def _break_one_of(maker: NodeMaker, part: Part) -> _Entries:
    yield [maker.negated(branch) for branch in part.children("oneOf")]
    raise Unknown


def _break_not(maker: NodeMaker, part: Part) -> _Entries:  # noqa: ARG001
    yield [part.child(part.schema["not"], "not")]


def _break_dependent_required(maker: NodeMaker, part: Part) -> _Entries:
    for name, needed in part.mapping("dependentRequired").items():
        names = needed if isinstance(needed, list) else []
        for other in filter(lambda one: isinstance(one, str), names):
            absent = {"properties": {other: False}, "required": [name]}
            yield [maker.made({"type": "object", **absent})]


def _break_bound(maker: NodeMaker, part: Part, keyword: str) -> _Entries:
    kind, opposite, distance = _BOUNDS[keyword]
    bound: Any = part.number(keyword) if kind == "number" else part.size(keyword)
    if kind == "number" or bound + distance >= 0:
        yield [maker.made({"type": kind, opposite: bound + distance})]


def _break_type(maker: NodeMaker, part: Part) -> _Entries:
    types = type_names(part)
    others = TYPES - types - {"integer"}
    if "integer" in types and "number" not in types:
        others -= {"number"}
    for name in sorted(others):
        yield [maker.made({"type": name})]
    if ("integer" in types) != ("number" in types):
        raise Unknown


def _written(maker: NodeMaker, part: Part, schema: dict[str, Any]) -> Part:
    """Return a schema of our own around one that stands in a part, in its scope."""
    if part.scope.dialect == 3:
        raise Unknown
    return maker.made(schema, part)


_BREAKERS: dict[str, Callable[[NodeMaker, Part], _Entries]] = {
    "additionalProperties": partial(_break_closing, "additionalProperties"),
    "anyOf": _break_any_of,
    "contains": _break_contains,
    "dependentRequired": _break_dependent_required,
    "items": _break_items,
    "not": _break_not,
    "oneOf": _break_one_of,
    "properties": _break_properties,
    "required": _break_required,
    "type": _break_type,
    "unevaluatedProperties": partial(_break_closing, "unevaluatedProperties"),
}
"""What breaks each keyword that is no bound."""
