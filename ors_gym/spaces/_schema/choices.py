"""Unions, enums, booleans, anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from ors_gym.spaces._schema.nodes import Body, Draw, Node, Unusable
from ors_gym.spaces._schema.numbers import MultiplesBody, RealsBody
from ors_gym.spaces._schema.regex import Pattern, word

__all__ = ["AnythingBody", "CheckedBody", "ChoiceBody", "DecimalBody", "ValuesBody"]

_ATTEMPTS = 100
# Digits after the point, and what to divide by to have fewer before it.
_MANY_DIGITS = ((2, 1), (1, 1), (0, 1), (1, 10), (0, 10), (0, 100))
_FEW_DIGITS = ((0, 10), (0, 1), (1, 1), (2, 1))


class ChoiceBody(Body):
    """One of several nodes: ``anyOf``, ``oneOf``, a list of types.

    Args:
        options: The nodes.
    """

    alternatives = True

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
            return self._another(index, draw, depth, reason)

    def _another(self, failed: int, draw: Draw, depth: int, reason: Unusable) -> Any:
        """Draw from the options that remain after one gave nothing."""
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


class ValuesBody(Body):
    """The values of an ``enum`` or a ``const``.

    Args:
        values: The values, at least one.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def draw(self, draw: Draw, depth: int) -> Any:  # noqa: ARG002
        value = self._values[int(draw.random.random() * len(self._values))]
        return deepcopy(value) if isinstance(value, dict | list) else value

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        return len(self._values)

    def values(self) -> Iterator[Any]:
        return map(deepcopy, self._values)


class AnythingBody(Body):
    """Any JSON value; small ones are drawn.

    Args:
        path: Where in the schema, for errors.
    """

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


class DecimalBody(Body):
    """Decimals as pydantic describes them: a number, or a string with a pattern.

    The schema bounds only the number and the digits only of the string, but the
    server checks both of either.

    Args:
        number: The numbers within the bounds.
        pattern: What the text must match, or None where the schema does not say how
            many digits there may be: then they are few.
        path: Where in the schema, for errors.
    """

    def __init__(
        self, number: MultiplesBody | RealsBody, pattern: Pattern | None, path: str
    ) -> None:
        self._number = number
        self._pattern = pattern
        self._path = path
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
        raise Unusable(self._path, "there is no end to the texts of a decimal")


class CheckedBody(Body):
    """A body of which only some values are right.

    Args:
        inner: Where the values come from.
        accepts: Whether one is right.
        path: Where in the schema the condition stands, for errors.
    """

    def __init__(self, inner: Body, accepts: Callable[[Any], bool], path: str) -> None:
        self._inner = inner
        self._accepts = accepts
        self._path = path
        self.alternatives = inner.alternatives

    def needs(self) -> Any:
        return self._inner.needs()

    def draw(self, draw: Draw, depth: int) -> Any:
        for _ in range(_ATTEMPTS):
            value = self._inner.draw(draw, depth)
            if self._accepts(value):
                return value
            draw.retries -= 1
            if draw.retries < 0:
                break
        raise Unusable(self._path, "many attempts gave no value that satisfies it")

    def count(self, count: Callable[[Node], int]) -> int:
        return self._inner.count(count)

    def values(self) -> Iterator[Any]:
        return filter(self._accepts, self._inner.values())
