"""A schema to a graph of nodes, once: which keywords decide how a value is drawn."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ors_gym.formats._drafts import NEWEST, Document, Scope
from ors_gym.spaces._sampler.complement import complement
from ors_gym.spaces._sampler.conjunction import (
    BY_TYPE,
    CHECKED,
    HARD,
    TYPES,
    Membership,
    Part,
    PartKey,
    flatten,
    type_names,
)
from ors_gym.spaces._sampler.containers import array_body, object_body
from ors_gym.spaces._sampler.enums import EnumBody, enum_body
from ors_gym.spaces._sampler.nodes import (
    Body,
    CheckedBody,
    ImpossibleBody,
    Node,
    Unusable,
    measure,
)
from ors_gym.spaces._sampler.numbers import number_body
from ors_gym.spaces._sampler.patterns import Pattern
from ors_gym.spaces._sampler.strings import string_body
from ors_gym.spaces._sampler.unions import (
    AnythingBody,
    DecimalBody,
    PreferredBody,
    UnionBody,
    are_decimal,
    are_exclusive,
    discriminator,
)

_MAX_WORK = 100_000
_TOO_LARGE = "by the time this part was reached, the schema was too large to be sampled"
# A `not` is turned round unless that multiplies the cases beyond this.
_MAX_COMBINATIONS = 64
_MAX_EXCLUDED = 8
_MAX_COMBINED = 20_000
_MAX_DEPENDENCIES = 4
_MAX_CONDITIONS = 4
_BY_CHANCE = "not, by chance"
"""Marks a part whose ``not`` was turned round, but has yet to be checked."""


def compile_schema(
    document: Document, membership: Membership, *, only_objects: bool = False
) -> Node:
    """Return the measured node of a schema's values, which may be impossible.

    Raises Unusable if the schema is too large. ``membership`` is asked if needed.
    """
    return _Compiler(document, membership).run(only_objects=only_objects)


class _Compiler:
    def __init__(self, document: Document, membership: Membership) -> None:
        self._document = document
        self._membership = membership
        self._nodes: dict[frozenset[PartKey], Node] = {}
        self._inner: list[Node] = []
        self._queue: deque[tuple[Node, Sequence[Part]]] = deque()
        self._work = 0
        # Parts are told apart by identity, so our own schemas must live as long.
        self._made: dict[Any, Part] = {}
        self._own_scope = Scope(document, NEWEST, None)

    def run(self, *, only_objects: bool) -> Node:
        root = Part.at(self._document.root, "#", self._document.scope())
        objects = [self.made({"type": "object"})] if only_objects else []
        start = self.node([root, *objects])
        while self._queue:
            node, parts = self._queue.popleft()
            try:
                node.body = self._body(node, parts)
            except Unusable as reason:
                node.body = ImpossibleBody(reason.path, reason.reason)
        if self._document.circular:
            # What a circle allows is jsonschema's to say: a `not` may stand in it.
            start.body = self.checked(start.body, [root], "#")
        nodes = [*self._nodes.values(), *self._inner]
        measure(nodes)
        preferred = [n.body for n in nodes if isinstance(n.body, PreferredBody)]
        for anyhow in (False, True):
            if not start.possible:
                for body in preferred:
                    body.settle(anyhow=anyhow)
                measure(nodes)
        return start

    def node(self, parts: Sequence[Part]) -> Node:
        """Return the node of the values that satisfy all of some schemas."""
        key = frozenset(part.key for part in parts)
        if key not in self._nodes:
            self._work += 1 + len(parts)
            node = Node(parts[0].path if parts else "#")
            self._nodes[key] = node
            self._queue.append((node, parts))
        return self._nodes[key]

    def made(self, schema: dict[str, Any], around: Part | None = None) -> Part:
        """Return a schema of our own as a part; ``around`` has the scope within it."""
        key = (
            repr(schema)
            if around is None
            else (around.key, *schema, *schema.get("required", ()))
        )
        if key not in self._made:
            self._made[key] = Part(
                schema,
                "#" if around is None else around.path,
                self._own_scope if around is None else around.scope,
                schema=schema,
            )
        return self._made[key]

    def negated(self, part: Part) -> Part:
        """Return the schema of the values that break a schema."""
        return self.made({"not": part.written}, part)

    def inner(self, body: Body) -> Node:
        """Return a node that stands for no schema of its own."""
        node = Node("#")
        node.body = body
        self._inner.append(node)
        return node

    def test(self, part: Part) -> Callable[[Any], bool]:
        """Return jsonschema's test of whether a schema allows a value."""
        return self._membership(part.written, part.scope)

    def checked(self, body: Body, parts: Sequence[Part], path: str) -> Body:
        """Return a body of those values that jsonschema finds valid."""
        tests = list(map(self.test, parts))
        return CheckedBody(body, lambda value: all(test(value) for test in tests), path)

    def _body(self, node: Node, parts: Sequence[Part]) -> Body:
        if self._work > _MAX_WORK:
            raise Unusable(node.path, _TOO_LARGE)
        flat = flatten(parts)
        self._work += len(flat)
        if not flat:
            return AnythingBody(node.path)
        # Unions first: each branch is combined with all else that applies.
        union = self._split(flat)
        if union is not None:
            return union
        if any("enum" in part.schema or "const" in part.schema for part in flat):
            return enum_body(self, flat)
        union = self._depending(flat) or self._excluding(flat)
        body = union or self._typed(node, flat)
        if isinstance(body, UnionBody):
            return body
        for part in flat:
            hard = sorted((HARD & part.schema.keys()) - part.done)
            if hard or CHECKED in part.done:
                path = f"{part.path}/{hard[0]}" if hard else part.path
                body = self.checked(body, [part], path)
        return body

    def _split(self, flat: list[Part]) -> Body | None:
        """Return the union that some keyword makes of the values, if there is one."""
        if sum(part.has("if") for part in flat) > _MAX_CONDITIONS:
            return self._one_condition(flat)
        flat = _leave_to_checks(flat)
        for index, part in enumerate(flat):
            for keyword, split in (
                ("anyOf", self._union),
                ("oneOf", self._union),
                ("if", self._conditional),
            ):
                if part.has(keyword):
                    rest = [*flat[:index], part.without(keyword), *flat[index + 1 :]]
                    return split(part, rest, keyword)
        return None

    def _depending(self, flat: list[Part]) -> UnionBody | None:
        """Return the values without a member that demands more, and those with it."""
        for index, part in enumerate(flat):
            schemas = part.mapping("dependentSchemas")
            if len(schemas) > _MAX_DEPENDENCIES:
                continue
            for name, schema in schemas.items():
                done = f"dependentSchemas/{name}"
                if done not in part.done:
                    rest = [*flat[:index], part.without(done), *flat[index + 1 :]]
                    absent = self.made({"type": "object", "properties": {name: False}})
                    present = self.made({"type": "object", "required": [name]})
                    inner = part.child(schema, "dependentSchemas", name)
                    options = [[*rest, absent], [*rest, present, inner]]
                    return UnionBody([self.node(option) for option in options])
        return None

    def _excluding(self, flat: list[Part]) -> UnionBody | None:
        """Return the union of the values that break what a ``not`` forbids."""
        found = []
        combinations = 1
        for index, part in enumerate(flat):
            if part.has("not") and _BY_CHANCE not in part.done:
                inner = part.child(part.schema["not"], "not")
                entries, complete = complement(self, inner)
                self._work += len(entries)
                combinations *= max(1, len(entries))
                found.append((len(entries), index, entries, complete))
        if not found or combinations > _MAX_COMBINATIONS:
            return None
        plain = {i: entries[0] for n, i, entries, whole in found if n == 1 and whole}
        if plain:
            # All at once: a `not` of many alternatives is one of each.
            turned = [
                part.without("not") if index in plain else part
                for index, part in enumerate(flat)
            ]
            added = [part for entry in plain.values() for part in entry]
            return UnionBody([self.node([*turned, *added])])
        _, index, entries, complete = min(found, key=lambda one: one[:2])
        part = flat[index]
        rest = [*flat[:index], *flat[index + 1 :]]
        done = part.without("not" if complete else _BY_CHANCE)
        options = [self.node([*rest, done, *entry]) for entry in entries]
        if not complete:
            options.append(self.node([*rest, done]))
        elif not options:
            raise Unusable(f"{part.path}/not", "every value satisfies what it forbids")
        return UnionBody(options)

    def _union(self, part: Part, rest: list[Part], keyword: str) -> Body:
        branches = part.children(keyword)
        tag = discriminator(part)
        # A server that goes by a discriminator insists on it, even if it has a default.
        tagged = [self.made({"required": [tag]})] if tag is not None else []
        types = frozenset.intersection(TYPES, *map(type_names, flatten(rest)))
        exclusive = keyword == "anyOf" or are_exclusive(branches, tag, types)
        few = len(branches) <= _MAX_EXCLUDED
        excluded = [] if exclusive or not few else list(map(self.negated, branches))
        options = [
            self.node([*rest, one, *tagged, *excluded[:index], *excluded[index + 1 :]])
            for index, one in enumerate(branches)
        ]
        if keyword == "anyOf" and not flatten(rest):
            self._join_decimals(branches, options)
        body = UnionBody(options)
        if exclusive or few:
            return body
        return self.checked(body, [part.only("oneOf")], f"{part.path}/oneOf")

    def _join_decimals(self, branches: list[Part], options: list[Node]) -> None:
        """Replace pydantic's two branches of a Decimal by a node that draws both."""
        for index, (one, two) in enumerate(itertools.pairwise(branches)):
            if are_decimal(one.schema, two.schema):
                text = two.text("pattern")
                # Meant for a whole text; to pydantic 2.13 one option has no end.
                pattern = None if text is None else Pattern(f"(?:{text})$", two.path)
                number = number_body([one], integer=False)
                body = DecimalBody(number, pattern, one.path)
                options[index : index + 2] = [self.inner(body)]
                return

    def _conditional(self, part: Part, rest: list[Part], keyword: str) -> Body:
        condition = part.child(part.schema[keyword], keyword)
        met, unmet = [*rest, condition], [*rest, self.negated(condition)]
        for outcome, parts in (("then", met), ("else", unmet)):
            if outcome in part.schema:
                parts.append(part.child(part.schema[outcome], outcome))
        return UnionBody([self.node(met), self.node(unmet)])

    def _one_condition(self, flat: list[Part]) -> UnionBody:
        """Return the values that meet one condition of many; the others are checked."""
        checked = [
            part.without("if", CHECKED) if part.has("if") else part for part in flat
        ]
        options = [self.node(checked)]
        for part in flat:
            if part.has("if"):
                met = [
                    part.child(part.schema[keyword], keyword)
                    for keyword in ("if", "then")
                    if keyword in part.schema
                ]
                options.append(self.node([*checked, *met]))
        return UnionBody(options)

    def _typed(self, node: Node, parts: list[Part]) -> Body:
        types = frozenset.intersection(*map(type_names, parts))
        if all("type" not in part.schema for part in parts):
            implied = _implied(parts)
            if not implied:
                return AnythingBody(node.path)
            # Keywords say nothing of other types, which do if this one is impossible.
            kinds = (self.made({"type": name}) for name in (implied, "null"))
            return PreferredBody(*(self.node([*parts, kind]) for kind in kinds))
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


def _leave_to_checks(flat: list[Part]) -> list[Part]:
    """Mark the unions that draws cannot aim at, since they would multiply too far."""
    left = _MAX_COMBINED // len(flat)
    marked = []
    for part in flat:
        for keyword in ("anyOf", "oneOf"):
            if part.has(keyword):
                left //= max(1, len(part.listing(keyword)))
                if not left:
                    part = part.without(keyword, CHECKED)  # noqa: PLW2901
        marked.append(part)
    return marked if left == 0 else flat


def _implied(parts: list[Part]) -> str | None:
    """Return the one type that the keywords are about, where no type is named."""
    keywords = frozenset[str]().union(*(part.schema.keys() for part in parts))
    for name, about in BY_TYPE.items():
        if about & keywords:
            return name
    return None
