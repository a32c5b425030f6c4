"""Unions: ``anyOf``, ``oneOf``, ``if``, lists of types, decimals, and any value."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ors_gym.spaces._sampler.conjunction import TYPES, Part, flatten, type_names
from ors_gym.spaces._sampler.nodes import (
    Body,
    Draw,
    ImpossibleBody,
    Node,
    Unusable,
    distinct_key,
)
from ors_gym.spaces._sampler.numbers import MultiplesBody, RealsBody
from ors_gym.spaces._sampler.patterns import Pattern, word


class UnionBody(Body):
    """One of several nodes, each as likely as the next."""

    enough = 1

    def __init__(self, options: Sequence[Node]) -> None:
        self._options = options
        self._possible: list[Node] = []

    def needs(self) -> list[tuple[int, Node]]:
        return [(1, option) for option in self._options]

    def draw(self, draw: Draw, depth: int) -> Any:
        if not self._possible:
            # Known once the graph is measured; smallest first.
            self._possible = sorted(
                (option for option in self._options if option.possible),
                key=lambda option: option.size or 0,
            )
        draw.allowance -= 1
        if not draw.is_free(depth):
            return self._possible[0].draw(draw, depth)
        index = int(draw.random.random() * len(self._possible))
        try:
            return self._possible[index].draw(draw, depth)
        except Unusable as reason:
            return self._draw_another(index, draw, depth, reason)

    def _draw_another(
        self, failed: int, draw: Draw, depth: int, reason: Unusable
    ) -> Any:
        for option in self._possible[:failed] + self._possible[failed + 1 :]:
            draw.give_up(reason)
            try:
                return option.draw(draw, depth)
            except Unusable as another:
                reason = another
        raise reason

    def count(self, count: Callable[[Node], int]) -> int:
        return sum(count(option) for option in self._options if option.possible)

    def values(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(
            option.body.values() for option in self._options if option.possible
        )


class PreferredBody(UnionBody):
    """The first of two nodes, or the second if `settle` finds the first impossible."""

    def __init__(self, first: Node, second: Node) -> None:
        super().__init__([first])
        self._second = second

    def settle(self, *, anyhow: bool) -> None:
        """Switch to the second node if the first is impossible.

        Without ``anyhow`` it switches only if the first node is itself an
        `ImpossibleBody`; with it, also if the first is impossible because of its parts.
        """
        (first,) = self._options
        if not first.possible and (anyhow or isinstance(first.body, ImpossibleBody)):
            self._options = [self._second]


def discriminator(part: Part) -> str | None:
    """Return the member that OpenAPI's ``discriminator`` names (pydantic emits it)."""
    named = part.schema.get("discriminator")
    name = named.get("propertyName") if isinstance(named, dict) else None
    return name if isinstance(name, str) else None


_MAX_BRANCHES = 100
_MAX_NESTING = 5


def are_exclusive(
    branches: list[Part], tag: str | None, types: frozenset[str] = TYPES
) -> bool:
    """Return whether no value satisfies two branches of a ``oneOf``, where that shows.

    Every value is of one of the ``types``, and has the member that ``tag`` names, since
    a discriminator does.
    """
    try:
        forms = [_form(branch, tag, 0, types) for branch in branches]
    except Unusable:
        return False
    if not forms:
        return True
    for name in set.intersection(*(set(form.tags) for form in forms)):
        values = [form.tags[name] for form in forms]
        distinct = sum(map(len, values)) == len(frozenset[Any]().union(*values))
        if distinct and (name is None or all(f.types == {"object"} for f in forms)):
            return True
    if len(branches) > _MAX_BRANCHES:
        return False
    return all(one.excludes(other) for one, other in itertools.combinations(forms, 2))


@dataclasses.dataclass(slots=True)
class _Form:
    """What the values of a schema have in common."""

    types: frozenset[str]
    tags: dict[str | None, frozenset[Any]]
    """For members that every value has: the values that these may have.

    None stands for the value itself.
    """

    def excludes(self, other: _Form) -> bool:
        if not self.types & other.types:
            return True
        shared = self.tags.keys() & other.tags.keys()
        if self.types | other.types != {"object"}:
            shared &= {None}
        return any(not self.tags[name] & other.tags[name] for name in shared)

    def narrow(self, inner: list[_Form]) -> None:
        """Account for a union: each value has one of these forms as well."""
        if not inner:
            return
        self.types &= frozenset[str]().union(*(one.types for one in inner))
        for name in set.intersection(*(set(one.tags) for one in inner)):
            values = frozenset[Any]().union(*(one.tags[name] for one in inner))
            self.tags[name] = self.tags.get(name, values) & values


def _form(branch: Part, tag: str | None, depth: int, types: frozenset[str]) -> _Form:
    form = _Form(types, {})
    for part in flatten([branch]):
        form.types &= type_names(part)
        required = {*part.names("required"), tag}
        members = part.mapping("properties").items()
        for name, schema in [(None, part.schema), *members]:
            if name is None or (name in required and isinstance(schema, dict)):
                values = _constants(part.scope.view(schema))
                if values is not None:
                    form.tags[name] = form.tags.get(name, values) & values
        for keyword in ("anyOf", "oneOf"):
            if keyword in part.schema and depth < _MAX_NESTING:
                branches = part.children(keyword)
                inner = [_form(one, tag, depth + 1, types) for one in branches]
                form.narrow(inner)
    return form


def _constants(schema: dict[str, Any]) -> frozenset[Any] | None:
    if "const" in schema:
        return frozenset([distinct_key(schema["const"])])
    if isinstance(schema.get("enum"), list):
        return frozenset(map(distinct_key, schema["enum"]))
    return None


class AnythingBody(Body):
    """Any JSON value; small ones are drawn."""

    def __init__(self, path: str) -> None:
        self._path = path

    def draw(self, draw: Draw, depth: int) -> Any:  # noqa: ARG002
        random = draw.random
        options: tuple[Any, ...] = (
            word(random, random.randint(0, 8)),
            random.randint(-100, 100),
            round(random.uniform(-100, 100), 2),
            random.random() < 0.5,
            None,
            [],
            {},
        )
        return random.choice(options)

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        raise Unusable(self._path, "it can be anything")


_ATTEMPTS = 100
# Digits after the point, and what to divide by to have fewer before it.
_MANY_DIGITS = ((2, 1), (1, 1), (0, 1), (1, 10), (0, 10), (0, 100))
_FEW_DIGITS = ((0, 10), (0, 1), (1, 1), (2, 1))
_DECIMAL_PATTERN = "^(?!^[-+.]*$)"


def are_decimal(number: Any, text: Any) -> bool:
    """Return whether two branches are those by which pydantic describes a Decimal."""
    if not isinstance(number, dict) or not isinstance(text, dict):
        return False
    if number.get("type") != "number" or text.get("type") != "string":
        return False
    # Some versions, and Decimals without bounds on both digits, give no pattern.
    pattern = text.get("pattern", _DECIMAL_PATTERN)
    known = isinstance(pattern, str) and pattern.startswith(_DECIMAL_PATTERN)
    return known and text.keys() <= {"pattern", "type"}


class DecimalBody(Body):
    """Decimals as pydantic describes them: a number, or a string with a pattern.

    The schema bounds only the number, and the digits only of the string, but the
    server checks both of either.
    """

    def __init__(
        self, number: MultiplesBody | RealsBody, pattern: Pattern | None, path: str
    ) -> None:
        self._number = number
        self._pattern = pattern
        self._path = path
        # Without a pattern the server may allow fewer digits than the schema says.
        self._roundings = _FEW_DIGITS if pattern is None else _MANY_DIGITS

    def draw(self, draw: Draw, depth: int) -> Any:
        for _ in range(_ATTEMPTS):
            drawn = self._number.draw(draw, depth)
            for digits, divisor in self._roundings:
                value = round(drawn / divisor, digits or None)
                text = f"{value:.{digits}f}"
                fits = self._pattern is None or self._pattern.matches(text)
                if fits and self._number.wanted.accepts(value):
                    return text if draw.random.random() < 0.5 else value
        raise Unusable(self._path, f"{_ATTEMPTS} attempts gave no such decimal")

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        raise Unusable(self._path, "a decimal has infinitely many texts")
