"""A schema to a graph of nodes, once: which keywords decide how a value is drawn."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

from ors_gym.spaces._schema.conjunction import BY_TYPE, HARD, Part, flatten, type_names
from ors_gym.spaces._schema.containers import array_body, object_body
from ors_gym.spaces._schema.enums import EnumBody, Membership, enum_body
from ors_gym.spaces._schema.nodes import (
    Body,
    CheckedBody,
    ImpossibleBody,
    Node,
    Unusable,
    measure,
)
from ors_gym.spaces._schema.numbers import number_body
from ors_gym.spaces._schema.regex import Pattern
from ors_gym.spaces._schema.strings import string_body
from ors_gym.spaces._schema.unions import (
    AnythingBody,
    DecimalBody,
    UnionBody,
    are_decimal,
    are_exclusive,
    discriminator,
)

_MAX_WORK = 100_000


def compile_schema(schema: Any, membership: Membership) -> Node:
    """Return the measured node of a schema's values, which may be impossible.

    Raises Unusable if the schema is too large. ``membership`` is asked if needed.
    """
    return _Compiler(schema, membership).run()


class _Compiler:
    def __init__(self, root: Any, membership: Membership) -> None:
        self._root = root
        self._membership = membership
        self._nodes: dict[frozenset[tuple[int, frozenset[str]]], Node] = {}
        self._decimals: list[Node] = []
        self._queue: deque[tuple[Node, Sequence[Part]]] = deque()
        self._work = 0
        # Parts are told apart by identity, so our own schemas must live as long.
        self._made: dict[str, dict[str, Any]] = {}

    def run(self) -> Node:
        start = self.node([Part(self._root, "#")])
        while self._queue:
            node, parts = self._queue.popleft()
            try:
                node.body = self._body(node, parts)
            except Unusable as reason:
                if self._work > _MAX_WORK:
                    raise
                node.body = ImpossibleBody(reason.path, reason.reason)
        measure([*self._nodes.values(), *self._decimals])
        return start

    def node(self, parts: Sequence[Part]) -> Node:
        """Return the node of the values that satisfy all of some schemas."""
        key = frozenset(part.key for part in parts)
        if key not in self._nodes:
            self._work += 1 + len(parts)
            if self._work > _MAX_WORK:
                raise Unusable("#", "the schema is too large to be sampled")
            node = Node(parts[0].path if parts else "#")
            self._nodes[key] = node
            self._queue.append((node, parts))
        return self._nodes[key]

    def made(self, schema: dict[str, Any]) -> Part:
        """Return a schema of our own as a part."""
        return Part(self._made.setdefault(repr(schema), schema), "#")

    def checked(self, body: Body, schemas: list[Any], path: str) -> Body:
        """Return a body of those values that jsonschema finds valid."""
        tests = [self._membership(schema) for schema in schemas]
        return CheckedBody(body, lambda value: all(test(value) for test in tests), path)

    def _body(self, node: Node, parts: Sequence[Part]) -> Body:
        flat = flatten(self._root, parts)
        # Unions first: each branch is combined with all else that applies.
        for index, part in enumerate(flat):
            for keyword in ("anyOf", "oneOf"):
                if part.has(keyword):
                    rest = [*flat[:index], part.without(keyword), *flat[index + 1 :]]
                    return self._union(part, keyword, rest)
            if part.has("if"):
                rest = [*flat[:index], part.without("if"), *flat[index + 1 :]]
                return self._conditional(part, rest)
        if not flat:
            return AnythingBody(node.path)
        body = self._typed(node, flat)
        for part in flat:
            hard = sorted(HARD & part.schema.keys())
            if hard:
                body = self.checked(body, [part.schema], f"{part.path}/{hard[0]}")
        return body

    def _union(self, part: Part, keyword: str, rest: list[Part]) -> Body:
        branches = [
            part.child(schema, keyword, index)
            for index, schema in enumerate(part.listing(keyword))
        ]
        tag = discriminator(part)
        # A server that goes by a discriminator insists on it, even if it has a default.
        tagged = [self.made({"required": [tag]})] if tag is not None else []
        options = [self.node([*rest, branch, *tagged]) for branch in branches]
        if keyword == "anyOf" and not flatten(self._root, rest):
            self._join_decimals(branches, options)
        body = UnionBody(options)
        if keyword == "oneOf" and not are_exclusive(self._root, branches, tag):
            return self.checked(
                body, [{"oneOf": part.schema["oneOf"]}], f"{part.path}/oneOf"
            )
        return body

    def _join_decimals(self, branches: list[Part], options: list[Node]) -> None:
        """Replace pydantic's two branches of a Decimal by a node that draws both."""
        for index, (one, two) in enumerate(itertools.pairwise(branches)):
            if are_decimal(one.schema, two.schema):
                text = two.text("pattern")
                pattern = None if text is None else Pattern(text, two.path)
                number = number_body([one], integer=False)
                node = Node(one.path)
                node.body = DecimalBody(number, pattern, one.path)
                self._decimals.append(node)
                options[index : index + 2] = [node]
                return

    def _conditional(self, part: Part, rest: list[Part]) -> Body:
        met = [
            part.child(part.schema[keyword], keyword)
            for keyword in ("if", "then")
            if keyword in part.schema
        ]
        unmet = (
            [part.child(part.schema["else"], "else")] if "else" in part.schema else []
        )
        body = UnionBody([self.node([*rest, *met]), self.node([*rest, *unmet])])
        condition = {
            keyword: part.schema[keyword]
            for keyword in ("if", "then", "else")
            if keyword in part.schema
        }
        return self.checked(body, [condition], f"{part.path}/if")

    def _typed(self, node: Node, parts: list[Part]) -> Body:
        if any("enum" in part.schema or "const" in part.schema for part in parts):
            return enum_body(self._membership, parts)
        types = frozenset.intersection(*map(type_names, parts))
        if all("type" not in part.schema for part in parts):
            types = _implied(parts)
            if not types:
                return AnythingBody(node.path)
        if "number" in types:
            types -= {"integer"}
        if not types:
            raise Unusable(node.path, "no type is allowed by all that applies here")
        if len(types) > 1:
            options = [
                self.node([*parts, self.made({"type": name})]) for name in sorted(types)
            ]
            return UnionBody(options)
        (name,) = types
        return self._one_type(name, parts)

    def _one_type(self, name: str, parts: list[Part]) -> Body:
        if name == "object":
            return object_body(self, parts)
        if name == "array":
            return array_body(self, parts)
        if name == "string":
            return string_body(self, parts)
        if name == "boolean":
            return EnumBody([False, True])
        if name == "null":
            return EnumBody([None])
        return number_body(parts, integer=name == "integer")


def _implied(parts: list[Part]) -> frozenset[str]:
    """Return the one type that the keywords are about, where no type is named."""
    keywords = frozenset[str]().union(*(part.schema.keys() for part in parts))
    for name, about in BY_TYPE.items():
        if about & keywords:
            return frozenset({name})
    return frozenset()
