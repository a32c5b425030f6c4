"""The drafts of JSON Schema, and what a reference means at a place in a schema.

Samplers and checks follow them, and so does what is shown and sent to providers. The
samplers know one draft, 2020-12. `modernise` writes a schema of an older draft in
its keywords. `Scope` follows references as jsonschema does, with the same library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from referencing._core import Resolver

NEWEST = 2020
_MOST_DIGITS = 20
_TUPLES = 2019
"""The last draft whose ``items`` may be a list; the only one with ``$recursiveRef``."""
_DIALECTS = {
    "http://json-schema.org/draft-03/schema": 3,
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
NAMES = {number: name for name, number in _DIALECTS.items()}
"""What ``$schema`` says in a schema of each draft."""
_SINCE = {
    "const": 6,
    "contains": 6,
    "propertyNames": 6,
    "if": 7,
    "dependentRequired": 2019,
    "dependentSchemas": 2019,
    "maxContains": 2019,
    "minContains": 2019,
    "unevaluatedItems": 2019,
    "unevaluatedProperties": 2019,
    "$dynamicRef": 2020,
    "prefixItems": 2020,
}
"""The draft that brought a keyword, which older ones ignore."""


def declared(schema: Any, inherited: int) -> int:
    """Return the draft that a schema names, else the inherited one."""
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if not isinstance(name, str):
        return inherited
    return _DIALECTS.get(name.removesuffix("#"), inherited)


def modernise(schema: dict[str, Any], dialect: int) -> dict[str, Any]:
    """Return what a schema says, in the keywords of Draft 2020-12.

    ``dependencies`` counts in every draft: the newer ones allow it, for compatibility.

    Example:
        >>> modernise({"minimum": 1, "exclusiveMinimum": True, "const": 5}, 4)
        {'exclusiveMinimum': 1}
        >>> modernise({"items": [{}], "additionalItems": False}, 7)
        {'prefixItems': [{}], 'items': False}
    """
    if dialect <= 7 and schema.get("$ref") is not None:
        # Its siblings are ignored there.
        return {"$ref": schema["$ref"]}
    old = "dependencies" in schema or ("$recursiveRef" in schema)
    if dialect == NEWEST and not old:
        return schema
    view = {key: schema[key] for key in schema if _SINCE.get(key, 0) <= dialect}
    if dialect != _TUPLES:
        view.pop("$recursiveRef", None)
    if dialect == 3:
        _modernise_draft_3(view)
    if dialect <= 4:
        for bound, exclusive in (
            ("minimum", "exclusiveMinimum"),
            ("maximum", "exclusiveMaximum"),
        ):
            if view.pop(exclusive, False) is True and bound in view:
                view[exclusive] = view.pop(bound)
    if dialect <= _TUPLES:
        rest = view.pop("additionalItems", True)
        if isinstance(view.get("items"), list):
            view["prefixItems"] = view.pop("items")
            view["items"] = rest
    _split_dependencies(view)
    return view


def _split_dependencies(view: dict[str, Any]) -> None:
    dependencies = view.pop("dependencies", None)
    if not isinstance(dependencies, dict):
        return
    for name, needed in dependencies.items():
        of_names = isinstance(needed, list | str)
        keyword = "dependentRequired" if of_names else "dependentSchemas"
        there = view.get(keyword)
        view[keyword] = {
            **(there if isinstance(there, dict) else {}),
            name: [needed] if isinstance(needed, str) else needed,
        }


def _modernise_draft_3(view: dict[str, Any]) -> None:
    view.pop("required", None)
    properties = view.get("properties")
    if isinstance(properties, dict):
        view["required"] = [
            name
            for name, schema in properties.items()
            if isinstance(schema, dict) and schema.get("required") is True
        ]
    if "divisibleBy" in view:
        view["multipleOf"] = view.pop("divisibleBy")
    if "extends" in view:
        extended = view.pop("extends")
        view["allOf"] = extended if isinstance(extended, list) else [extended]
    if "disallow" in view:
        view["not"] = {"type": view.pop("disallow")}
    kinds = view.get("type")
    if kinds == "any" or (isinstance(kinds, list) and "any" in kinds):
        del view["type"]


_OLD_NAMES = {
    "prefixItems": "items",
    "items": "additionalItems",
    "dependentRequired": "dependencies",
    "dependentSchemas": "dependencies",
    "multipleOf": "divisibleBy",
    "allOf": "extends",
    "exclusiveMinimum": "minimum",
    "exclusiveMaximum": "maximum",
}


def written_name(schema: Any, view: Any, keyword: str) -> str:
    """Return the keyword of a schema that became this one in its modern view."""
    old = _OLD_NAMES.get(keyword, keyword)
    moved = view is not schema and view.get(keyword) is not schema.get(keyword)
    return old if moved and old in schema else keyword


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
        elif isinstance(target, list) and _is_index(key) and int(key) < len(target):
            target = target[int(key)]
        else:
            raise LookupError(f"the reference {reference!r:.200} leads nowhere")
    return target


def _is_index(key: str) -> bool:
    # Python reads no number of thousands of digits.
    return key.isdecimal() and len(key) < _MOST_DIGITS


class Document:
    """A whole schema: its draft, and whether its references are plain pointers.

    A schema that names no draft is one of 2020-12, or of 2019-09 if it has arrays of
    ``items``, which no later draft knows. An ``$id`` that is no URL, or holds a JSON
    pointer, as jsonschema.net writes them, names nothing, and is dropped.
    """

    def __init__(self, root: Any) -> None:
        if any(map(_empty_names, _schemas(root))):
            root = json.loads(json.dumps(root))
            for schema in list(_schemas(root)):
                for key in _empty_names(schema):
                    del schema[key]
        self.root = root
        self._views: dict[tuple[int, int], Any] = {}
        self.dialect = declared(root, 0)
        self.plain = True
        self.dynamic = False
        self.circular = False
        """Whether a schema was seen to refer to itself for the same value."""
        self.name_patterns: set[str] = set()
        """The patterns of names of members, wherever they stand."""
        self.bundled = True
        """Whether each reference is a pointer to the root or one of its definitions."""
        tuples = False
        for schema in _schemas(root):
            patterns = schema.get("patternProperties")
            if isinstance(patterns, dict):
                self.name_patterns.update(patterns)
            tuples = tuples or isinstance(schema.get("items"), list)
            reference = schema.get("$ref", "#")
            if isinstance(reference, str) and reference != "#":
                self.bundled = self.bundled and reference.startswith(_DEFINITIONS)
            for key in _SCOPED & schema.keys():
                self.plain = self.plain and schema is root and key in ("$id", "id")
                self.dynamic = self.dynamic or key in _DYNAMIC
        self.bundled = self.bundled and self.plain
        if not self.dialect:
            self.dialect = _TUPLES if tuples else NEWEST

    def view(self, schema: Any, dialect: int) -> Any:
        """Return the one modern view of a schema, which lives as long as this does."""
        if not isinstance(schema, dict):
            return schema
        key = id(schema), dialect
        if key not in self._views:
            self._views[key] = modernise(schema, dialect)
        return self._views[key]

    @cached_property
    def resolver(self) -> Resolver[Any]:
        """Referencing's resolver at the root; it knows all drafts, fetches nothing."""
        from jsonschema_specifications import (  # type: ignore[import-untyped]  # noqa: PLC0415
            REGISTRY,
        )

        resource = _specification(self.dialect).create_resource(self.root)
        resolver: Resolver[Any] = REGISTRY.resolver_with_root(resource)
        return resolver

    def place(self, schema: Any) -> str:
        """Return where a schema stands in the document, as a JSON pointer."""
        return self._places.get(id(schema), "#")

    @cached_property
    def _places(self) -> dict[int, str]:
        places = {id(self.root): "#"}
        stack: list[tuple[str, Any]] = [("#", self.root)]
        while stack:
            path, value = stack.pop()
            if isinstance(value, dict):
                items: Iterable[tuple[Any, Any]] = value.items()
            else:
                items = enumerate(value if isinstance(value, list) else ())
            for key, inner in items:
                if isinstance(inner, dict | list) and id(inner) not in places:
                    escaped = str(key).replace("~", "~0").replace("/", "~1")
                    places[id(inner)] = f"{path}/{escaped}"
                    stack.append((places[id(inner)], inner))
        return places

    def scope(self) -> Scope:
        """Return the scope of the root."""
        return Scope(self, self.dialect, None if self.plain else self.resolver)


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """What a place in a schema inherits: its draft, and where its references start."""

    document: Document
    dialect: int
    resolver: Resolver[Any] | None
    """None in a document of which each reference is a pointer from its root."""

    @property
    def key(self) -> Any:
        """What makes one schema mean different things in two scopes."""
        if not self.document.dynamic or self.resolver is None:
            return self.dialect
        return self.dialect, scope_key(self.resolver)

    def view(self, schema: Any) -> Any:
        """Return a schema of this scope in the keywords of Draft 2020-12."""
        return self.document.view(schema, self.dialect)

    def enter(self, schema: Any) -> Scope:
        """Return the scope inside of a schema that stands in this one."""
        if not isinstance(schema, dict):
            return self
        dialect = declared(schema, self.dialect) if "$schema" in schema else None
        resolver = self.resolver
        name = "$id" if self.dialect > 4 else "id"
        if resolver is not None and isinstance(schema.get(name), str):
            resource = _specification(self.dialect).create_resource(schema)
            resolver = resolver.in_subresource(resource)
        if dialect is None and resolver is self.resolver:
            return self
        return Scope(self.document, dialect or self.dialect, resolver)

    def _follow(self, reference: str) -> tuple[Any, Scope]:
        if self.resolver is None and (reference == "#" or reference[:2] == "#/"):
            target = follow_reference(reference, self.document.root)
            return target, self._move(target, None)
        from referencing import exceptions  # noqa: PLC0415

        resolver = self.resolver or self.document.resolver
        try:
            resolved = resolver.lookup(reference)
        except (exceptions.PointerToNowhere, exceptions.NoSuchAnchor):
            raise LookupError(
                f"the reference {reference!r:.200} leads nowhere"
            ) from None
        except (exceptions.Unresolvable, AttributeError, TypeError, ValueError):
            raise LookupError(
                f"the reference {reference!r:.200} leads out of the schema, and nothing"
                f" is fetched"
            ) from None
        return resolved.contents, self._move(resolved.contents, resolved.resolver)

    def refer(self, keyword: str, reference: Any) -> tuple[Any, Scope]:
        """Return what a keyword of `REFERENCES` leads to, and the scope inside.

        A reference that leads nowhere raises a LookupError, whose message says why.
        """
        if keyword == "$recursiveRef":
            return self._follow_recursive()
        if not isinstance(reference, str):
            raise LookupError(  # noqa: TRY004  # as for all that leads nowhere
                f"it must be a string, not {reference!r:.100}"
            )
        return self._follow(reference)

    def _follow_recursive(self) -> tuple[Any, Scope]:
        from referencing.jsonschema import lookup_recursive_ref  # noqa: PLC0415

        resolved = lookup_recursive_ref(self.resolver or self.document.resolver)
        return resolved.contents, self._move(resolved.contents, resolved.resolver)

    def _move(self, target: Any, resolver: Resolver[Any] | None) -> Scope:
        dialect = declared(target, self.dialect)
        if dialect == self.dialect and resolver is self.resolver:
            return self
        return Scope(self.document, dialect, resolver)


def scope_key(resolver: Resolver[Any]) -> tuple[str, ...]:
    """Return the part of the dynamic scope that decides where references lead."""
    # The outermost scope that has an anchor decides, so repetitions say nothing.
    outwards = [uri for uri, _ in resolver.dynamic_scope()]
    return tuple(dict.fromkeys(reversed(outwards)))


def _specification(dialect: int) -> Any:
    from referencing.jsonschema import specification_with  # noqa: PLC0415

    return specification_with(NAMES[dialect])


REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
NAMED_PARTS = frozenset({"dependencies", "dependentSchemas", "patternProperties"}) | {
    "properties"
}
"""Keywords that hold schemas by name."""
LISTED_PARTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords that hold schemas in a list."""
SINGLE_PARTS = frozenset(
    {"additionalItems", "additionalProperties", "contains", "else", "extends", "if"}
    | {"items", "not", "propertyNames", "then", "unevaluatedItems"}
    | {"unevaluatedProperties"}
)
"""Keywords that hold one schema, or in an older draft several."""
_DEFINITIONS = ("#/$defs/", "#/definitions/", "#/properties/")
_DYNAMIC = frozenset({"$dynamicAnchor", "$dynamicRef", "$recursiveAnchor"}) | {
    "$recursiveRef"
}
_SCOPED = _DYNAMIC | {"$anchor", "$id", "id"}
_NAMES = frozenset({"$anchor", "$dynamicAnchor", "$id", "id"})
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
_MAPS = NAMED_PARTS | {"$defs", "definitions"}


def _schemas(root: Any) -> Iterator[dict[str, Any]]:
    """Go through the objects that may be schemas, however deep they are nested."""
    stack = [root]
    seen: set[int] = set()
    while stack:
        schema = stack.pop()
        if isinstance(schema, list):
            stack.extend(schema)
        elif isinstance(schema, dict) and id(schema) not in seen:
            seen.add(id(schema))
            yield schema
            for key, value in schema.items():
                if key in _MAPS and isinstance(value, dict):
                    stack.extend(value.values())
                elif key not in _DATA and isinstance(value, dict | list):
                    stack.append(value)


def _empty_names(schema: dict[str, Any]) -> list[str]:
    """List the keywords that should name a schema, but hold no name."""
    return [key for key in _NAMES & schema.keys() if not _is_name(key, schema[key])]


def _is_name(key: str, name: Any) -> bool:
    if not isinstance(name, str):
        return False
    try:
        urlsplit(name)
    except ValueError:
        return False
    return key != "$id" or "#/" not in name
