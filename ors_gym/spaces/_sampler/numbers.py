"""Integers and numbers between bounds."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from ors_gym.spaces._sampler.conjunction import Part, largest, smallest
from ors_gym.spaces._sampler.nodes import Body, Draw, Node, Unusable

# How far an unbounded draw goes from zero, or from the one bound there is.
_REACH = 100
_ATTEMPTS = 100


def number_body(parts: Sequence[Part], *, integer: bool) -> MultiplesBody | RealsBody:
    """Return the body of the numbers that satisfy all of some schemas."""
    steps = []
    for part in parts:
        step = part.number("multipleOf")
        if step is not None and step <= 0:
            raise part.wrong("multipleOf", "above 0")
        if step is not None and step not in steps:
            steps.append(step)
    wanted = _NumberRange(
        integer=integer,
        minimum=largest(part.number("minimum") for part in parts),
        above=largest(part.number("exclusiveMinimum") for part in parts),
        maximum=smallest(part.number("maximum") for part in parts),
        below=smallest(part.number("exclusiveMaximum") for part in parts),
        steps=tuple(steps),
    )
    path = parts[0].path
    distance = wanted.step()
    if distance is None:
        return RealsBody(wanted, path)
    return MultiplesBody(wanted, distance, path)


@dataclasses.dataclass(slots=True)
class _NumberRange:
    """What JSON Schema can ask of a number."""

    integer: bool = False
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    steps: tuple[float, ...] = ()
    """Numbers that it must be a multiple of."""

    def accepts(self, value: float) -> bool:
        """Return whether a finite value is in the range, as jsonschema decides."""
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
            and (not self.steps or all(_is_multiple(value, s) for s in self.steps))
            and (not self.integer or value == int(value))
        )

    def step(self) -> Fraction | None:
        """Return the distance between neighbours, or None if there is none."""
        # The decimal digits of a float count: 0.1 rather than its binary neighbour.
        steps = [
            Fraction(str(step)) if isinstance(step, float) else Fraction(step)
            for step in self.steps
        ]
        if self.integer:
            steps.append(Fraction(1))
        if not steps:
            return None
        return Fraction(
            math.lcm(*(step.numerator for step in steps)),
            math.gcd(*(step.denominator for step in steps)),
        )

    def low(self) -> Fraction | None:
        """Return the lower bound, whether or not it belongs to the range."""
        bounds = [Fraction(b) for b in (self.minimum, self.above) if b is not None]
        return max(bounds) if bounds else None

    def high(self) -> Fraction | None:
        """Return the upper bound, whether or not it belongs to the range."""
        bounds = [Fraction(b) for b in (self.maximum, self.below) if b is not None]
        return min(bounds) if bounds else None


class MultiplesBody(Body):
    """The multiples of a step within a range; integers are multiples of one."""

    def __init__(self, wanted: _NumberRange, step: Fraction, path: str) -> None:
        self.wanted = wanted
        self._path = path
        self._step = None if step == 1 else step
        low, high = wanted.low(), wanted.high()
        first = None if low is None else math.ceil(low / step)
        last = None if high is None else math.floor(high / step)
        if first is not None and _reaches(first * step, wanted.above):
            first += 1
        if last is not None and _reaches(-last * step, wanted.below, -1):
            last -= 1
        if first is not None and last is not None and first > last:
            raise Unusable(path, "no number lies between its bounds")
        self._first, self._last = first, last
        start = first
        if start is None:
            start = -_REACH if last is None else min(-_REACH, last - _REACH)
        self._span = (start, max(_REACH, start + _REACH) if last is None else last)

    def draw(self, draw: Draw, depth: int) -> float:  # noqa: ARG002
        first, last = self._span
        for _ in range(_ATTEMPTS):
            value = self._multiple(draw.random.randint(first, last))
            if not self.wanted.steps or self.wanted.accepts(value):
                return value
        raise Unusable(self._path, f"{_ATTEMPTS} attempts gave no such number")

    def _multiple(self, times: int) -> float:
        if self._step is None:
            return times
        value = times * self._step
        return value.numerator if value.denominator == 1 else _as_float(value)

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        if self._first is None or self._last is None:
            raise Unusable(
                self._path, "there are infinitely many numbers without a bound"
            )
        return self._last - self._first + 1

    def values(self) -> Iterator[Any]:
        first, last = self._span
        multiples = map(self._multiple, range(first, last + 1))
        return filter(self.wanted.accepts, multiples)


class RealsBody(Body):
    """The floats of a range."""

    def __init__(self, wanted: _NumberRange, path: str) -> None:
        self.wanted = wanted
        self._path = path
        reach = Fraction(_REACH)
        low, high = wanted.low(), wanted.high()
        if low is None:
            low = -reach if high is None else high - max(reach, abs(high))
        if high is None:
            high = max(reach, low + max(reach, abs(low)))
        self._low, self._high = _as_float(low), _as_float(high)
        if low > high or (low == high and not wanted.accepts(self._low)):
            raise Unusable(path, "no number lies between its bounds")

    def draw(self, draw: Draw, depth: int) -> float:  # noqa: ARG002
        for _ in range(_ATTEMPTS):
            share = draw.random.random()
            # Weighted, not subtracted: the distance may be too large for a float.
            value = self._low * (1 - share) + self._high * share
            for candidate in (round(value, 2), value):
                if self.wanted.accepts(candidate):
                    return candidate
        raise Unusable(self._path, f"{_ATTEMPTS} attempts gave no such number")

    def count(self, count: Callable[[Node], int]) -> int:  # noqa: ARG002
        if self._low == self._high:
            return 1
        raise Unusable(self._path, "there are infinitely many numbers in its range")

    def values(self) -> Iterator[Any]:
        yield self._low


def _reaches(value: Fraction, bound: float | None, sign: int = 1) -> bool:
    """Return whether a value is at or before a bound that it must be beyond."""
    return bound is not None and value <= sign * Fraction(bound)


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
        return int(quotient) == quotient
    except OverflowError:
        return False


def _as_float(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return sys.float_info.max if number > 0 else -sys.float_info.max
