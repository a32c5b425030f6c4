"""Whether the branches of a ``oneOf`` exclude each other by their form."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from ors_gym.spaces.schema.conjunction import Part, flatten
from ors_gym.spaces.schema.nodes import Unusable, distinct_key

__all__ = ["are_exclusive", "type_names"]

_MAX_BRANCHES = 100
_MAX_NESTING = 5
_TYPES = frozenset(
    {"array", "boolean", "integer", "null", "number", "object", "string"}
)


@dataclasses.dataclass(slots=True)
class _Form:
    """What the values of a schema have in common.

    Args:
        types: The types they may have.
        tags: For members that they must have: what these can be.
    """

    types: frozenset[str]
    tags: dict[str, frozenset[Any]]

    def excludes(self, other: _Form) -> bool:
        if not self.types & other.types:
            return True
        if self.types | other.types != {"object"}:
            return False
        shared = self.tags.keys() & other.tags.keys()
        return any(not self.tags[name] & other.tags[name] for name in shared)


def are_exclusive(root: Any, branches: list[Part], tag: str | None) -> bool:
    """Return whether no value can satisfy two branches, as far as can be told.

    Args:
        root: The schema that references are about.
        branches: The branches of a ``oneOf``.
        tag: The member that a discriminator names: every value has it.
    """
    if len(branches) > _MAX_BRANCHES:
        return False
    try:
        forms = [_form(root, branch, tag, 0) for branch in branches]
    except Unusable:
        return False
    return all(one.excludes(other) for one, other in itertools.combinations(forms, 2))


def type_names(part: Part) -> frozenset[str]:
    """Return the types that a schema allows; ``number`` includes ``integer``.

    Args:
        part: The schema.

    Raises:
        Unusable: If ``type`` is not a type or an array of types.
    """
    wanted = part.schema.get("type")
    if wanted is None and "type" not in part.schema:
        return _TYPES
    names = wanted if isinstance(wanted, list) else [wanted]
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        raise part.wrong("type", f"one or more of {', '.join(sorted(_TYPES))}")
    return frozenset(names) | ({"integer"} if "number" in names else frozenset())


def _form(root: Any, branch: Part, tag: str | None, depth: int) -> _Form:
    form = _Form(_TYPES, {})
    for part in flatten(root, [branch]):
        form.types &= type_names(part)
        required = {*part.names("required"), tag}
        for name, schema in part.mapping("properties").items():
            if name in required and isinstance(schema, dict):
                values = _constants(schema)
                if values is not None:
                    form.tags[name] = form.tags.get(name, values) & values
        for keyword in ("anyOf", "oneOf"):
            if keyword in part.schema and depth < _MAX_NESTING:
                inner = [
                    _form(root, part.child(schema, keyword, index), tag, depth + 1)
                    for index, schema in enumerate(part.listing(keyword))
                ]
                _narrow(form, inner)
    return form


def _narrow(form: _Form, inner: list[_Form]) -> None:
    """Account for a union: each value has one of these forms as well."""
    if not inner:
        return
    form.types &= frozenset[str]().union(*(one.types for one in inner))
    for name in set.intersection(*(set(one.tags) for one in inner)):
        values = frozenset[Any]().union(*(one.tags[name] for one in inner))
        form.tags[name] = form.tags.get(name, values) & values


def _constants(schema: dict[str, Any]) -> frozenset[Any] | None:
    if "const" in schema:
        return frozenset([distinct_key(schema["const"])])
    if isinstance(schema.get("enum"), list):
        return frozenset(map(distinct_key, schema["enum"]))
    return None
