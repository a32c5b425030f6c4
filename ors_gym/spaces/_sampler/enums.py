"""Values that a schema lists: ``enum`` and ``const``, and booleans and null."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ors_gym.formats._json import copy_json
from ors_gym.spaces._sampler.conjunction import ASSERTIONS, NodeMaker, Part, type_names
from ors_gym.spaces._sampler.nodes import Body, Draw, Node, Unusable, distinct_key

_MAX_CHECKED_VALUES = 10_000


class EnumBody(Body):
    """At least one value, each as likely as the next."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def draw(self, draw: Draw, depth: int) -> Any:  # noqa: ARG002
        value = self._values[int(draw.random.random() * len(self._values))]
        return copy_json(value) if isinstance(value, dict | list) else value

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        return len(self._values)

    def values(self) -> Iterator[Any]:
        return map(copy_json, self._values)


def enum_body(maker: NodeMaker, parts: list[Part]) -> EnumBody:
    """Return the body of the values that all lists have and all keywords allow."""
    lists = [part.listing("enum") for part in parts if "enum" in part.schema]
    lists += [[p.schema["const"]] for p in parts if "const" in p.schema]
    values, *others = sorted(lists, key=len)
    for other in others:
        allowed = set(map(distinct_key, other))
        values = [value for value in values if distinct_key(value) in allowed]
    types = frozenset.intersection(*map(type_names, parts))
    values = [value for value in values if _types_of(value) & types]
    forbidden = {distinct_key(v) for part in parts for v in _forbidden(part)}
    values = [value for value in values if distinct_key(value) not in forbidden]
    demanding = ASSERTIONS - {"const", "enum", "type"}
    tests = [
        maker.test(part.leaving_out("const", "enum", *done))
        for part in parts
        for done in [["not"] if _forbidden(part) else []]
        if (demanding & part.schema.keys()) - {*done}
    ]
    if tests:
        values = [
            value
            for value in values[:_MAX_CHECKED_VALUES]
            if all(test(value) for test in tests)
        ]
    if not values:
        raise Unusable(parts[0].path, "none of the values listed is allowed")
    return EnumBody(values)


def _forbidden(part: Part) -> list[Any]:
    """Return the values that a ``not`` lists, where it does nothing else."""
    inner = part.child(part.schema.get("not"), "not")
    if not isinstance(inner.schema, dict) or len(inner.schema) != 1:
        return []
    return inner.listing("enum") or [
        inner.schema[key] for key in inner.schema if key == "const"
    ]


_TYPES_OF = {
    bool: {"boolean"},
    dict: {"object"},
    float: {"number"},
    int: {"integer"},
    list: {"array"},
    str: {"string"},
    type(None): {"null"},
}


def _types_of(value: Any) -> set[str]:
    if isinstance(value, float) and value.is_integer():
        return {"integer", "number"}
    return _TYPES_OF[type(value)]
